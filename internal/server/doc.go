// Package server is the agent's HTTP server: it shows how the agent is to
// people, load balancers and Prometheus.
//
//	app --(functions)--> server --(HTTP)--> /health /livez /readyz /metrics
//	                                        /api/v1/containers
//
// It knows none of the components: what it shows comes from functions and a
// gatherer that it is given. Everything a client can take up is bounded: time,
// header size, connections, scrapes and listings at once. Only GET and HEAD are
// answered, and POST where it changes the agent.
//
// The package starts one goroutine for the listener and those of net/http for
// the connections; Run waits for all of them.
package server
