package server

import (
	"net/http"
	"net/http/pprof" // what it registers by itself is on a mux that nobody serves
)

const profilesPath = "/debug/pprof/"

// maxProfiles is how many profiles are made at once: each costs time and memory
// of the whole agent.
const maxProfiles = 1

// profilesHandler serves everything below profilesPath.
func profilesHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+profilesPath, pprof.Index) // also every named profile
	mux.HandleFunc("GET "+profilesPath+"cmdline", pprof.Cmdline)
	mux.HandleFunc("GET "+profilesPath+"profile", pprof.Profile)
	mux.HandleFunc("GET "+profilesPath+"symbol", pprof.Symbol)
	mux.HandleFunc("GET "+profilesPath+"trace", pprof.Trace)
	return limited(maxProfiles, mux)
}
