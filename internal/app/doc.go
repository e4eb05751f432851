// Package app puts the agent together, starts it, and stops it in order.
//
//	start: positions, dead letters, sink, dispatcher, monitors, HTTP server
//	stop:  monitors, then the dispatcher drains, then positions are saved;
//	       the HTTP server answers until the end
//
// It has no logic of its own but the order, and what /health makes of the
// components' states (health.go).
package app
