// Package monitors turns containers into batches: it decides how each
// container's log is read, reads it, parses it, joins what Docker split, and
// puts the container's labels on it.
//
//	docker events --> ContainerMonitor --addContainerLogFile--> FileMonitor
//	                                                              |  one goroutine waits (inotify, ticks, the 2 s poll)
//	                                                              |  one per lane reads: tail -> parser -> joiner
//	                                                              v
//	                                              entry.Batch --> dispatch
//
// The number of goroutines does not depend on the number of containers.
//
// Files: container_monitor.go follows the engine, container_log_discovery.go
// says which containers have which file, container_metadata_cache.go remembers
// what the engine said of a container, labels.go makes labels of it;
// file_monitor.go waits and schedules, file_log.go is one log being read,
// inotify.go the kernel's notifications, docker_json_parser.go the parser.
package monitors
