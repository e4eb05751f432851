package server

import (
	"context"
	"net/http"
)

// reloadHandler serves POST /-/reload: 202 when the new configuration will be
// used, 400 with its faults when the old one stays in force.
func reloadHandler(reload func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		if err := reload(ctx); err != nil {
			reply(w, http.StatusBadRequest, textType, []byte(err.Error()+"\n"))
			return
		}
		reply(w, http.StatusAccepted, textType, []byte("the new configuration is taken over\n"))
	}
}
