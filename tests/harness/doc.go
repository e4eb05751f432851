// Package harness gives tests the real parts around the product: a Docker
// engine of their own with containers that write known lines (Dockerd), and a
// log store that takes what Loki takes and answers queries (Store).
//
//	logwriter (in a container) --> dockerd --> json-file logs, API
//	                                               |
//	                                      the product under test
//	                                               |
//	                                             Store --> Query
//
// Only tests import it. Everything it starts ends with the test, also when the
// test killed parts of it; everything it makes lies below one temporary
// directory and, for containers, one parent cgroup.
//
// Where a part is missing (no root, no dockerd, no store's binary), a test is
// skipped; with LOG_CAPTURER_REQUIRE_DOCKER=1 in the environment it fails
// instead, so that no one believes in tests that did not run.
//
// The engine is the one installed, or LOG_CAPTURER_DOCKERD (the path of a
// dockerd) with LOG_CAPTURER_RUNC (the path of a runc), both absolute.
package harness
