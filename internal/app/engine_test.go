package app

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/docker/enginetest"
)

// playedEngine is a Docker engine on a socket of its own, whose containers run.
type playedEngine struct {
	name, host, root string
	containers       []played
	// say has what takes lines for the log that is followed, the latest if there are some;
	// nil while none is.
	say atomic.Pointer[chan string]
}

// played is a container. The zero driver is json-file, which has a log of what is written
// to it; the log of others begins with an old line, their name.
type played struct {
	name, driver string
	labels       map[string]string
}

func playEngine(tb testing.TB, name string, containers ...played) *playedEngine {
	tb.Helper()
	e := &playedEngine{name: name, containers: containers}
	e.root, e.host = enginetest.Serve(tb, e)
	for i := range containers {
		if err := os.MkdirAll(filepath.Dir(e.log(i)), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	return e
}

func (e *playedEngine) dir() string { return filepath.Join(e.root, "containers") }

func (e *playedEngine) log(i int) string {
	id := containerID(i)
	return filepath.Join(e.dir(), id, id+"-json.log")
}

func containerID(i int) string { return fmt.Sprintf("%064x", i+1) }

// write adds to the log of a container.
func (e *playedEngine) write(tb testing.TB, i int, text string) {
	tb.Helper()
	f, err := os.OpenFile(e.log(i), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err != nil || f.Close() != nil {
		tb.Fatal(err)
	}
}

// entryText is an entry as json-file has it. The text is of ASCII.
func entryText(text string, at time.Time) string {
	return fmt.Sprintf(`{"log":%q,"stream":"stdout","time":%q}`+"\n", text+"\n", at.UTC().Format(time.RFC3339Nano))
}

func (e *playedEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if strings.HasPrefix(path, "/v") {
		_, path, _ = strings.Cut(path[1:], "/")
		path = "/" + path
	}
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	id, of, _ := strings.Cut(strings.TrimPrefix(path, "/containers/"), "/")
	switch {
	case path == "/info":
		answer(map[string]any{"Name": e.name, "DockerRootDir": e.root, "ServerVersion": "20.10.24"})
	case path == "/events":
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case path == "/containers/json":
		var all []map[string]any
		for i, c := range e.containers {
			all = append(all, map[string]any{"Id": containerID(i), "Names": []string{"/" + c.name}, "State": "running"})
		}
		answer(all)
	case of == "json":
		i := number(id)
		c := e.containers[i]
		driver, logPath := c.driver, ""
		if driver == "" {
			driver, logPath = "json-file", e.log(i)
		}
		answer(map[string]any{
			"Id": id, "Name": "/" + c.name, "LogPath": logPath, "Created": "2026-01-02T03:04:04Z",
			"Config":     map[string]any{"Image": "app:1", "Labels": c.labels},
			"HostConfig": map[string]any{"LogConfig": map[string]any{"Type": driver}},
			"State":      map[string]any{"Status": "running", "Running": true, "StartedAt": "2026-01-02T03:04:05Z"},
		})
	case of == "logs":
		follow := r.URL.Query().Get("follow") == "1"
		say := make(chan string)
		if follow {
			e.say.Store(&say)
			defer e.say.CompareAndSwap(&say, nil)
		}
		w.Header().Set("Content-Type", "application/vnd.docker.raw-stream")
		entry := func(at, text string) {
			text = at + " " + text + "\n"
			_, _ = w.Write(append(binary.BigEndian.AppendUint32([]byte{1, 0, 0, 0}, uint32(len(text))), text...))
			_ = http.NewResponseController(w).Flush()
		}
		entry("2026-01-02T03:04:06Z", e.containers[number(id)].name)
		for follow {
			select {
			case text := <-say:
				entry(time.Now().UTC().Format(time.RFC3339Nano), text)
			case <-r.Context().Done():
				follow = false
			}
		}
	}
}

// number is the opposite of containerID.
func number(id string) (i int) {
	_, _ = fmt.Sscanf(id, "%x", &i)
	return i - 1
}
