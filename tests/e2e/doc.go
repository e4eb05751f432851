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
// One engine serves all tests that leave it alone; each test has a store and an
// agent of its own. Every test ends by adding up: lines read = delivered +
// dead-lettered, nothing on its way.
package e2e
