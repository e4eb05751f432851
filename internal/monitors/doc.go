// Package monitors turns containers into batches: it decides how each
// container's log is read, reads it, parses it, joins what Docker split, and
// puts the container's labels on it.
//
//	docker events --> ContainerMonitor --addContainerLogFile----> FileMonitor
//	                       |   ^                                    |  one goroutine waits (inotify, ticks, the 2 s poll)
//	                       |   | a file cannot be read              |  one per lane reads: tail -> parser --+
//	                       |   +------------------------------------+                                       v
//	                       |                                                                              joiner --> entry.Batch --> dispatch
//	                       +--------monitorContainerStream------> StreamMonitor                             ^
//	                                                                |  one goroutine plans                  |
//	                                                                |  one per open connection reads -------+
//
// The number of goroutines does not depend on the number of containers: files
// need none of their own, and connections are bounded.
//
// Both roads keep the same position, so that a container can change from one to
// the other at any time: a hand-over is a resume.
//
// Files: container_monitor.go follows the engine; routing.go decides which road
// a container takes, selection.go whether it is captured at all, breaker.go when
// it leaves its file and comes back; container_log_discovery.go says which
// containers have which file, container_metadata_cache.go remembers what the
// engine said of a container, labels.go makes labels of it. file_monitor.go waits
// and schedules, file_log.go is one log being read, inotify.go the kernel's
// notifications, docker_json_parser.go the parser. stream_monitor.go streams,
// stream_plan.go decides which logs are followed and which are read in turns. Of
// both roads: container_log.go is what is kept of a log, resume.go says where
// reading goes on, joiner.go makes lines of entries, forgetter.go drops the
// positions of removed containers, log_problems.go says what cannot be read.
package monitors
