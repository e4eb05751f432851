// Package docker is Docker's API as plain types of our own: who is there (List,
// Inspect, Info) and what happens to them (Watch). It is the only importer of
// the moby client in the product.
//
//	engine --(GET /events, one connection)--> read --> queue --> Watch --> Watcher
//	       <-(GET /_ping every 30 s)--------- beat      |          |
//	       <-(GET /containers/json)---------------------+----------+
//	                                      on connecting, every 5 min, after overflow
//
// The API version is negotiated with the engine, again whenever the engine
// announces another one (it was up- or downgraded under us).
//
// Every call but the streams (events, logs) ends after 10 s. Errors say which call to
// which host failed and, where this process can tell, what an operator should
// do about it.
//
// Environments of containers hold secrets: they are decoded by the moby client,
// and never leave this package.
package docker
