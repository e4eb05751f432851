package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// health is what devrun reads of the agent's /health (docs/contract.md).
type health struct {
	Monitors struct {
		FileMonitor struct {
			FilesMonitored int `json:"files_monitored"`
		} `json:"file_monitor"`
	} `json:"monitors"`
	Docker struct {
		State       string         `json:"state"`
		Error       string         `json:"error"`
		Synced      bool           `json:"synced"`       // the containers have been listed
		NotCaptured map[string]int `json:"not_captured"` // containers by log driver
	} `json:"docker"`
	Problems []struct {
		What   string `json:"what"`
		Remedy string `json:"remedy"`
	} `json:"problems"`
}

func (h health) files() int { return h.Monitors.FileMonitor.FilesMonitored }

// rows say what the agent reads, and what is wrong if something is.
func (h health) rows() [][2]string {
	var rows [][2]string
	switch {
	case h.Docker.Error != "":
		rows = append(rows, [2]string{"reading", "nothing: Docker is not reachable (DOCKER_HOST says where it is)"})
	case !h.Docker.Synced:
		rows = append(rows, [2]string{"reading", "nothing yet: still waiting for Docker"})
	default:
		rows = append(rows, [2]string{"reading", fmt.Sprintf("%d containers from their files", h.files())})
	}
	others := 0
	for _, n := range h.Docker.NotCaptured {
		others += n
	}
	if others > 0 {
		rows = append(rows, [2]string{"", fmt.Sprintf("not %d others, whose log driver keeps no such file", others)})
	}
	for _, p := range h.Problems {
		rows = append(rows, [2]string{"problem", p.What}, [2]string{"", p.Remedy})
	}
	return rows
}

// settledHealth asks until Docker has been asked for its containers and their
// number has stopped growing, or settle has passed: the agent answers before.
func settledHealth(ctx context.Context, c config, url string, gone <-chan struct{}) health {
	deadline := time.NewTimer(c.settle)
	defer deadline.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var last health
	for {
		if body, err := get(ctx, url); err == nil {
			var now health
			if json.Unmarshal(body, &now) == nil {
				if now.Docker.Synced && last.Docker.Synced && now.files() == last.files() {
					return now
				}
				last = now
			}
		}
		select {
		case <-tick.C:
		case <-gone:
			return last
		case <-ctx.Done():
			return last
		case <-deadline.C:
			return last
		}
	}
}

// get fetches url. Any answer is an answer: an unhealthy agent says 503.
func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", url, err)
	}
	// Straight to the address, whatever HTTP_PROXY says.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", url, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	return body, nil
}
