// Package config reads the configuration file into plain structs, and says
// everything that is wrong with it at once.
//
//	config.yaml --(YAML nodes)--> schema --(parse, check)--> Config --> app
//	                                 |
//	                                 +--> CONFIGURATION.md
//
// One table (schema.go) holds every key: its path, default, unit, what is
// allowed, what it does, and where its value goes. Decoding, the defaults and
// the reference document are all made from that table, so a key cannot exist
// without being documented, nor be documented without existing.
//
// Decoding is strict: an unknown key, a key written twice, a wrong type or a
// bad value is an error, one line each, all of them collected:
//
//	config.yaml:12: server.port: "x" is not a whole number; a whole number from 0 to 65535
//
// The package knows none of the components that are configured, keeps no state
// and starts no goroutine. The text of a secret appears in no error and no
// formatted value.
package config

//go:generate go test -run TestReference -update .
