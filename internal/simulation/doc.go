// Package simulation holds tests alone: the agent under a seeded scheduler.
//
//	writer (as Docker does) --files--> tail, monitors --> dispatch --> store
//	engine (events, late)  ---------->     |                 |  ^
//	wake   (no kernel)     ---------->  positions  spool, dead letters --> disk
//
// Everything between the writer and the store is the product's; what is around it is
// the simulation's, in one testing/synctest bubble, whose clock stands still while any
// goroutine is at work. A seed decides each step: lines, rotations, containers and their
// names, how the store answers, what the disk does, kills, power losses, stops and starts.
// The oracle knows every line (oracle_test.go). What internal/app wires is wired again in
// agent_test.go, since the real engine's and store's clients need a network.
//
// TestSimulation runs seeds, TestBroken agents with a fault that has to be found. See
// docs/measuring.md for how a seed that fails is replayed.
package simulation
