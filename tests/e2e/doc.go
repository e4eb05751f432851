// Package e2e tests the real binary of the agent between a real Docker engine
// and a real log store, or the stand-in for Loki where answers other than "yes"
// are wanted.
//
//	logwriter in containers -> dockerd -> log files
//	                                         |
//	                                 bin/log_capturer  (stopped, killed, starved)
//	                                         |
//	                         VictoriaLogs or lokitest -> what has arrived
//	                                         |
//	                       lines written = lines found, each once, in order
//
// The store of most tests keeps whatever it is sent twice, so that doubled lines
// are seen. Where Docker itself may lose or cut lines (it is killed, or a
// container is), the log file is what was written; else package lines is.
//
// A test has a store and an agent of its own, and an engine to itself while it runs:
// one that serves other tests before and after, or its own if it stops it. Tests say
// t.Parallel, and run some at a time (-parallel), unless they measure what things cost
// or race against an engine that removes and rotates logs: those run before, one after
// the other. A writer has no end where the test decides how long it has to write.
//
// Every test that ends with an agent at peace adds up, in all and
// by container: what was read, and was in the spool at the start, is delivered,
// dead-lettered, in the spool or counted as lost, and nothing is on its way.
//
// A run of all tests also fails if there is a metric in docs/contract.md that has not
// moved at any agent, and moved_test.go does not say why.
package e2e
