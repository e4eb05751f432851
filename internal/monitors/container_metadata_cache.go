package monitors

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/log-capturer/log_capturer/internal/docker"
)

// DefaultMetadataTTL is how long what the engine said of a container is
// believed. Nothing but the name can change, and a rename deletes the entry.
const DefaultMetadataTTL = time.Hour

// ContainerMetadataCache remembers what the engine said of a container, so that
// a list of a thousand containers does not cost a thousand inspections every
// few minutes. It is safe for concurrent use. It is asked when a container is
// met, never per line: lines bear the labels of their log.
type ContainerMetadataCache struct {
	ttl          time.Duration
	hits, misses prometheus.Counter

	mu      sync.Mutex
	entries map[string]cachedContainer
	swept   time.Time // when expired entries were last thrown out
}

type cachedContainer struct {
	container docker.Container
	expires   time.Time
}

// NewContainerMetadataCache makes an empty cache; ttl 0 means
// DefaultMetadataTTL. A nil Registerer takes no metrics.
func NewContainerMetadataCache(ttl time.Duration, reg prometheus.Registerer) *ContainerMetadataCache {
	if ttl == 0 {
		ttl = DefaultMetadataTTL
	}
	c := &ContainerMetadataCache{
		ttl:     ttl,
		entries: make(map[string]cachedContainer),
		hits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "log_capturer_metadata_cache_hits_total",
			Help: "Questions about a container that the cache answered.",
		}),
		misses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "log_capturer_metadata_cache_misses_total",
			Help: "Questions about a container that the Docker engine had to answer.",
		}),
	}
	if reg != nil {
		reg.MustRegister(c.hits, c.misses)
	}
	return c
}

// Get gives what is known of a container, and false if that is nothing or too
// old.
func (c *ContainerMetadataCache) Get(id string) (docker.Container, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[id]
	if !ok || !time.Now().Before(e.expires) {
		delete(c.entries, id)
		c.misses.Inc()
		return docker.Container{}, false
	}
	c.hits.Inc()
	return e.container, true
}

// Set keeps what the engine said of a container.
func (c *ContainerMetadataCache) Set(d docker.Container) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.entries[d.ID] = cachedContainer{container: d, expires: now.Add(c.ttl)}
	if now.Sub(c.swept) >= c.ttl {
		// Entries of containers whose destroy event was lost.
		for id, e := range c.entries {
			if !now.Before(e.expires) {
				delete(c.entries, id)
			}
		}
		c.swept = now
	}
}

// Delete forgets a container: it was destroyed, or renamed.
func (c *ContainerMetadataCache) Delete(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, id)
}

// Len is the number of containers remembered.
func (c *ContainerMetadataCache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}
