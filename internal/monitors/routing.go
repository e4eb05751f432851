package monitors

import "slices"

// driverNone is Docker's log driver that throws everything away.
const driverNone = "none"

// RoutingConfig is what the configuration says of how logs are read.
type RoutingConfig struct {
	// Files is file_based_monitoring.enabled: if it is false everything is
	// streamed, which is the rollback switch.
	Files bool
	// LogDrivers are the drivers whose files are read.
	LogDrivers []string
	// Fallback is fallback_to_streaming: what cannot be read from a file is
	// streamed.
	Fallback bool
	// Streaming is streaming.enabled.
	Streaming bool
}

// fallsBack says whether a container is streamed if its file cannot be read.
func (c RoutingConfig) fallsBack() bool { return c.Files && c.Fallback && c.Streaming }

// Route is how the log of a container is read.
type Route uint8

const (
	routeNone   Route = iota // not at all
	routeFile                // from its file
	routeStream              // through the Docker API
)

// method is the route's name in metrics and in what operators see.
func (r Route) method() string {
	switch r {
	case routeFile:
		return MethodFileMonitor
	case routeStream:
		return MethodStreaming
	}
	return "none"
}

// Why a container is read as it is. Those that begin with a verb follow the
// name of the log driver.
const (
	reasonKeepsNothing = "keeps nothing"
	reasonKeepsFile    = "keeps a file"
	reasonKeepsNoFile  = "keeps no file that can be read"
	reasonFilesOff     = "file_based_monitoring is off"
	reasonUnreadable   = "the log file cannot be read"

	reasonButNoFallback  = ", and fallback_to_streaming is off"
	reasonButNoStreaming = ", and streaming is off"
)

// decideRoute says how the log of a container with this log driver is read, and
// why, in words for an operator. Readable says whether its file can be read; it
// counts only for a driver of cfg.LogDrivers ("listed" below, all but none are
// "other"). The first row that fits counts; - is anything, D the driver's name.
//
//	driver | readable | files | fallback | streaming | method       | reason
//	none   | -        | -     | -        | -         | none         | log driver D keeps nothing
//	-      | -        | off   | -        | on        | streaming    | file_based_monitoring is off
//	-      | -        | off   | -        | off       | none         | file_based_monitoring is off, and streaming is off
//	listed | yes      | on    | -        | -         | file_monitor | log driver D keeps a file
//	listed | no       | on    | on       | on        | streaming    | the log file cannot be read
//	listed | no       | on    | off      | -         | file_monitor | the log file cannot be read, and fallback_to_streaming is off
//	listed | no       | on    | on       | off       | file_monitor | the log file cannot be read, and streaming is off
//	other  | -        | on    | on       | on        | streaming    | log driver D keeps no file that can be read
//	other  | -        | on    | off      | -         | none         | log driver D keeps no file that can be read, and fallback_to_streaming is off
//	other  | -        | on    | on       | off       | none         | log driver D keeps no file that can be read, and streaming is off
//
// A file that cannot be read and may not be streamed stays on the file's road,
// where it is tried again: what is in it is not lost until it is rotated away.
func decideRoute(cfg RoutingConfig, driver string, readable bool) (Route, string) {
	theDriver := "log driver " + driver + " "
	if driver == driverNone {
		return routeNone, theDriver + reasonKeepsNothing
	}
	if !cfg.Files {
		if cfg.Streaming {
			return routeStream, reasonFilesOff
		}
		return routeNone, reasonFilesOff + reasonButNoStreaming
	}
	route, reason := routeNone, theDriver+reasonKeepsNoFile
	if slices.Contains(cfg.LogDrivers, driver) {
		if readable {
			return routeFile, theDriver + reasonKeepsFile
		}
		route, reason = routeFile, reasonUnreadable
	}
	switch {
	case cfg.fallsBack():
		return routeStream, reason
	case !cfg.Fallback:
		return route, reason + reasonButNoFallback
	}
	return route, reason + reasonButNoStreaming
}
