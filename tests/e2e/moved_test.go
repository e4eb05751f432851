package e2e

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/log-capturer/log_capturer/tests/harness"
)

// elsewhere are metrics of docs/contract.md, or values{of} their labels, that no test
// here moves: why, and which test of another package moves them, as "directory Test".
var elsewhere = map[string]struct{ why, test string }{
	"log_capturer_build_info":                         {"always 1", "internal/server TestProcessCollector"},
	"log_capturer_dead_letters_dropped_total":         {"the files take more than a test can fill", "internal/deadletter TestLimit"},
	"log_capturer_file_events_missed_total":           {"inotify misses nothing when it is told to", "internal/monitors TestFileMonitorLifeOfALog"},
	"log_capturer_lost_bytes_total{exited}":           {"a write between two steps of the agent", "internal/monitors TestLostAfterAnExit"},
	"log_capturer_lost_bytes_total{streamed}":         {"the breaker opens while rotation has taken unread files", "internal/monitors TestLostToTheStream"},
	"log_capturer_lost_bytes_total{truncated}":        {"only what a look at the file, every 2 s, has seen counts, and nobody sees the look", "internal/monitors TestLostToTruncation"},
	"log_capturer_lost_bytes_total{unreadable}":       {"needs a disk with bad sectors", "internal/monitors TestLostUnreadable"},
	"log_capturer_positions_ignored_acks_total":       {"would be a fault of the agent", "internal/positions TestIgnoredAcks"},
	"log_capturer_positions_sync_errors_total":        {"needs a disk whose sync fails", "internal/positions TestFaultsAreCounted"},
	"log_capturer_positions_unregistered_reads_total": {"would be a fault of the agent", "internal/positions TestFaultsAreCounted"},
	"log_capturer_routing_decision_total{other}":      {"needs a plugin", "internal/monitors TestContainerMonitorRoutes"},
}

// notMoved gives, sorted, which of the metrics, and of the values{of} their labels, have
// not moved.
func notMoved(metrics []harness.ContractMetric, moved func(name, value string) bool) (names []string) {
	for _, m := range metrics {
		if !moved(m.Name, "") {
			names = append(names, m.Name)
			continue
		}
		for _, v := range m.Values {
			if !moved(m.Name, v) {
				names = append(names, m.Name+"{"+v+"}")
			}
		}
	}
	return names
}

// wholeSuite reports whether every test here was to be run, and none may have skipped
// because something is missing.
func wholeSuite() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if flag.Lookup(name).Value.String() != "" {
			return false
		}
	}
	return harness.Required() && !testing.Short()
}

// everyMetricMoved is for the end of the whole suite: a metric that agents serve, and
// that nothing which they went through has moved, is not wired in, or not tested.
func everyMetricMoved() error {
	metrics, err := harness.ContractMetrics()
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(notMoved(metrics, harness.Moved), func(name string) bool {
		_, ok := elsewhere[name]
		return ok
	})
	if len(missing) > 0 {
		return fmt.Errorf("docs/contract.md promises what no agent here has moved:\n\t%s\n"+
			"A test should bring it about, or tests/e2e/moved_test.go say why not and where else", strings.Join(missing, "\n\t"))
	}
	return nil
}

// TestElsewhere: what is excused from moving here is promised, and the tests that are
// named instead are there.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	root := harness.Root(t)
	metrics, err := harness.ContractMetrics()
	if err != nil {
		t.Fatal(err)
	}
	none := func(string, string) bool { return false }
	allButValues := func(_, value string) bool { return value == "" }
	promised := append(notMoved(metrics, none), notMoved(metrics, allButValues)...)
	for _, name := range slices.Sorted(maps.Keys(elsewhere)) {
		e := elsewhere[name]
		if !slices.Contains(promised, name) {
			t.Errorf("docs/contract.md does not promise %s", name)
		}
		if e.why == "" {
			t.Errorf("%s: no reason", name)
		}
		dir, test, _ := strings.Cut(e.test, " ")
		decl := regexp.MustCompile(`(?m)^func ` + regexp.QuoteMeta(test) + `\(`)
		files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		if test == "" || !slices.ContainsFunc(files, func(file string) bool {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			return decl.Match(text)
		}) {
			t.Errorf("%s: there is no test %q", name, e.test)
		}
	}
}

func TestNotMoved(t *testing.T) {
	t.Parallel()
	metrics := []harness.ContractMetric{{Name: "a"}, {Name: "b", Values: []string{"x", "y"}}, {Name: "c", Values: []string{"z"}}}
	moved := map[string]bool{"a": true, "b": true, "bx": true}
	got := notMoved(metrics, func(name, value string) bool { return moved[name+value] })
	if want := []string{"b{y}", "c"}; !slices.Equal(got, want) {
		t.Errorf("not moved are %q, want %q", got, want)
	}
}
