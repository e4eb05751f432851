package monitors

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/log-capturer/log_capturer/internal/positions"
)

// forgetter drops the positions of removed containers, those whose last lines
// are on their way as soon as they are delivered. It is safe for concurrent use.
type forgetter struct {
	registry Registry
	log      *slog.Logger

	mu    sync.Mutex
	later map[string]struct{} // to be tried again
}

func newForgetter(cfg *LogConfig) *forgetter {
	return &forgetter{registry: cfg.Registry, log: cfg.Logger, later: make(map[string]struct{})}
}

// forget drops the position of a container, now or later.
func (f *forgetter) forget(id string) {
	var err error
	if _, known := f.registry.Lookup(id); known {
		err = f.registry.Forget(id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(err, positions.ErrInFlight) {
		f.later[id] = struct{}{}
		return
	}
	delete(f.later, id)
	if err != nil {
		f.log.Warn("position of a removed container could not be deleted", "container_id", id, "error", err)
	}
}

// again tries those that had to wait.
func (f *forgetter) again() {
	f.mu.Lock()
	ids := slices.Collect(maps.Keys(f.later))
	f.mu.Unlock()
	for _, id := range ids {
		f.forget(id)
	}
}

// waiting reports whether there are any to be tried again.
func (f *forgetter) waiting() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.later) > 0
}
