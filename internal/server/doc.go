// Package server is the agent's HTTP server: it shows how the agent is to
// people, load balancers and Prometheus.
//
//	app --(functions)--> server --(HTTP)--> / (the status page) /health /livez
//	                                        /readyz /metrics /api/v1/containers
//	                                        /api/v1/status
//	                       guard ---------> /api/v1/config /-/reload /debug/pprof
//
// It knows none of the components: what it shows comes from functions and a
// gatherer that it is given. The names and messages of containers are hostile input:
// JSON has them escaped for terminals, the page as text that can be seen, and cut.
// Everything a client can take up is bounded: time,
// header size, connections, scrapes and listings at once. Only GET and HEAD are
// answered, and POST where it changes the agent.
//
// The package starts one goroutine for the listener and those of net/http for
// the connections; Run waits for all of them.
package server
