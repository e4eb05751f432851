package server

import (
	"context"
	"net"
	"net/http"
	"net/netip"
)

// reloadHandler serves POST /-/reload: 202 when the new configuration will be
// used, 400 with its faults when the old one stays in force.
//
// It changes the agent, and there is no authentication: only this machine may
// ask, and no web page that somebody on it happens to look at (browsers send
// Origin with every POST).
func reloadHandler(reload func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !fromLoopback(r.RemoteAddr) || r.Header.Get("Origin") != "" {
			reply(w, http.StatusForbidden, textType, []byte("only from this machine, and not from a web page\n"))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		if err := reload(ctx); err != nil {
			reply(w, http.StatusBadRequest, textType, []byte(err.Error()+"\n"))
			return
		}
		reply(w, http.StatusAccepted, textType, []byte("the new configuration is taken over\n"))
	}
}

func fromLoopback(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
