package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// place is where an agent finds what it works on and with.
type place struct {
	root   string // the engine's
	engine string // address of Docker's API
	sink   string // http://HOST:PORT
	http   string // HOST:PORT for the agent's own server
	dir    string // for what the agent keeps
}

func (p *place) glob() string { return filepath.Join(p.root, "containers", "*", "*-json.log") }

// agent is a program that is measured.
type agent struct {
	name, program string
	// metrics: it serves /metrics on place.http, with its number of goroutines.
	metrics bool
	// idle: it waits for news. The floor looks at every file all the time, which
	// says nothing about files without news.
	idle bool
	// args writes what configuration it needs, and gives its arguments. All have
	// their own defaults, but where one would lose lines.
	args func(*place) ([]string, error)
}

const (
	agentOurs  = "log_capturer"
	agentFloor = "floor"
)

// allAgents gives the agents in the order in which they are measured and shown.
func allAgents() []agent {
	return []agent{
		{name: agentOurs, program: "log_capturer", metrics: true, idle: true, args: ours},
		{name: agentFloor, program: "bench-floor", args: func(p *place) ([]string, error) {
			return []string{"-containers", filepath.Join(p.root, "containers"), "-url", p.sink + "/loki/api/v1/push"}, nil
		}},
		{name: "vlagent", program: "vlagent", metrics: true, idle: true, args: func(p *place) ([]string, error) {
			return []string{
				"-fileCollector.glob=" + p.glob(), "-remoteWrite.url=" + p.sink + "/insert/native",
				"-tmpDataPath=" + p.dir, "-httpListenAddr=" + p.http,
			}, nil
		}},
		{name: "otelcol", program: filepath.Join("otelcol-src", "otelcol"), idle: true, args: otelcol},
	}
}

func agentNames() (names []string) {
	for _, a := range allAgents() {
		names = append(names, a.name)
	}
	return names
}

// built reports whether the agent's program is there.
func (a *agent) built(bin string) bool {
	_, err := os.Stat(filepath.Join(bin, a.program))
	return err == nil
}

func ours(p *place) ([]string, error) {
	host, port, err := splitPort(p.http)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(p.dir, "config.yaml")
	text := fmt.Sprintf(`data_dir: %s
server: {host: %s, port: %s, pprof: true}
docker: {host: "unix://%s"}
sinks: {loki: {url: %q}}
`, filepath.Join(p.dir, "data"), host, port, p.engine, p.sink)
	return []string{"-config", file}, os.WriteFile(file, []byte(text), 0o600)
}

// otelcol keeps positions, waits instead of dropping when the store is slower, and
// batches in its queue, as its documentation advises.
func otelcol(p *place) ([]string, error) {
	file := filepath.Join(p.dir, "config.yaml")
	text := fmt.Sprintf(`extensions:
  file_storage: {directory: %[1]s, create_directory: true}
receivers:
  filelog:
    include: [%[2]q]
    start_at: beginning
    include_file_path: true
    storage: file_storage
    retry_on_failure: {enabled: true}
    operators:
      - {type: container, format: docker, add_metadata_from_filepath: false}
exporters:
  otlphttp:
    endpoint: %[3]s
    sending_queue:
      block_on_overflow: true
      sizer: items
      queue_size: 100000
      batch: {flush_timeout: 200ms, min_size: 8192}
service:
  extensions: [file_storage]
  telemetry: {metrics: {level: none}}
  pipelines:
    logs: {receivers: [filelog], exporters: [otlphttp]}
`, filepath.Join(p.dir, "storage"), p.glob(), p.sink)
	return []string{"--config", "file:" + file}, os.WriteFile(file, []byte(text), 0o600)
}
