// Package engine is as much of Docker's API as the agent asks of it, for containers
// that do not run but have a log each: the benchmark needs no Docker.
package engine

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/log-capturer/log_capturer/bench/internal/genlog"
)

// apiVersion is what the engine announces.
const apiVersion = "1.43"

// Engine answers for a number of running containers with the json-file driver. It is
// an http.Handler, safe for concurrent use.
type Engine struct {
	root string
	list []byte            // the answer to a list
	byID map[string][]byte // to inspections
}

// New makes the engine of the containers 0 to n-1 with their logs below root.
func New(root string, n int, started time.Time) (*Engine, error) {
	e := &Engine{root: root, byID: make(map[string][]byte, n)}
	list := make([]map[string]any, n)
	for i := range n {
		id, name, image := genlog.ContainerID(i), genlog.ContainerName(i), "images.example/bench:1.2"
		labels := map[string]string{"com.docker.compose.project": "bench", "com.docker.compose.service": name}
		list[i] = map[string]any{
			"Id": id, "Names": []string{"/" + name}, "Image": image, "Labels": labels,
			"State": "running", "Status": "Up", "Created": started.Unix(),
		}
		at := started.UTC().Format(time.RFC3339Nano)
		b, err := json.Marshal(map[string]any{
			"Id": id, "Name": "/" + name, "Image": "sha256:" + id, "Created": at, "LogPath": genlog.LogPath(root, i),
			"Config":     map[string]any{"Image": image, "Labels": labels},
			"HostConfig": map[string]any{"LogConfig": map[string]any{"Type": "json-file", "Config": map[string]string{}}},
			"State":      map[string]any{"Status": "running", "Running": true, "Pid": os.Getpid(), "StartedAt": at, "FinishedAt": "0001-01-01T00:00:00Z"},
		})
		if err != nil {
			return nil, err
		}
		e.byID[id] = b
	}
	var err error
	e.list, err = json.Marshal(list)
	return e, err
}

// ServeHTTP implements http.Handler.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if strings.HasPrefix(path, "/v") { // /v1.43/info
		_, path, _ = strings.Cut(path[1:], "/")
		path = "/" + path
	}
	w.Header().Set("Api-Version", apiVersion)
	w.Header().Set("Content-Type", "application/json")
	inspected := e.byID[strings.TrimSuffix(strings.TrimPrefix(path, "/containers/"), "/json")]
	var body []byte
	switch {
	case path == "/_ping":
	case path == "/events": // nothing ever happens
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err == nil {
			<-r.Context().Done()
		}
	case path == "/containers/json":
		body = e.list
	case path == "/info":
		b, err := json.Marshal(map[string]string{
			"Name": "bench", "DockerRootDir": e.root, "ServerVersion": "24.0.0", "LoggingDriver": "json-file",
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		body = b
	case inspected != nil:
		body = inspected
	default:
		w.WriteHeader(http.StatusNotFound)
		body = []byte(`{"message":"no such thing here"}`)
	}
	_, _ = w.Write(body)
}
