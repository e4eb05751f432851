// Package lokitest is a stand-in for Loki that runs inside a test: an HTTP
// server that takes pushes, keeps the lines, and refuses what Loki with default
// limits refuses, in Loki's words.
//
//	loki (the sink) --HTTP--> lokitest.Server --(Lines, Requests)--> the test
//
// It follows the order of Loki's own steps (pkg/distributor, pkg/ingester): the
// distributor drops single lines and streams with bad labels and collects the
// reasons; the tenant's rate refuses all that is left; then the ingester takes
// stream after stream, and only what it says of the last stream is answered.
// Faults (answers, delays, broken connections) can be scripted ahead.
//
// It is for tests only and shares no code with the sink, whose oracle it is.
package lokitest
