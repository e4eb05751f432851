package monitors

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// routingRow is a row of the truth table. What is "-" is anything.
type routingRow struct{ driver, readable, files, fallback, streaming, method, reason string }

var routingTable = []routingRow{
	{"none", "-", "-", "-", "-", "none", "log driver D keeps nothing"},
	{"-", "-", "off", "-", "on", "streaming", "file_based_monitoring is off"},
	{"-", "-", "off", "-", "off", "none", "file_based_monitoring is off, and streaming is off"},
	{"listed", "yes", "on", "-", "-", "file_monitor", "log driver D keeps a file"},
	{"listed", "no", "on", "on", "on", "streaming", "the log file cannot be read"},
	{"listed", "no", "on", "off", "-", "file_monitor", "the log file cannot be read, and fallback_to_streaming is off"},
	{"listed", "no", "on", "on", "off", "file_monitor", "the log file cannot be read, and streaming is off"},
	{"other", "-", "on", "on", "on", "streaming", "log driver D keeps no file that can be read"},
	{"other", "-", "on", "off", "-", "none", "log driver D keeps no file that can be read, and fallback_to_streaming is off"},
	{"other", "-", "on", "on", "off", "none", "log driver D keeps no file that can be read, and streaming is off"},
}

// TestDecideRoute goes through all there can be.
func TestDecideRoute(t *testing.T) {
	both := []bool{true, false}
	word := func(b bool, yes, no string) string {
		if b {
			return yes
		}
		return no
	}
	used := make(map[routingRow]bool)
	for _, driver := range []string{"none", "json-file", "local", "syslog", "a/plugin:1", ""} {
		for _, listed := range [][]string{{DriverJSONFile}, {"local", DriverJSONFile}, nil} {
			for bits := range 16 {
				files, fallback, streaming, readable := both[bits&1], both[bits>>1&1], both[bits>>2&1], both[bits>>3]
				kind := word(slices.Contains(listed, driver), "listed", "other")
				if driver == "none" {
					kind = "none"
				}
				is := []string{kind, word(readable, "yes", "no"), word(files, "on", "off"), word(fallback, "on", "off"), word(streaming, "on", "off")}
				row := slices.IndexFunc(routingTable, func(r routingRow) bool {
					for i, want := range []string{r.driver, r.readable, r.files, r.fallback, r.streaming} {
						if want != "-" && want != is[i] {
							return false
						}
					}
					return true
				})
				if row < 0 {
					t.Fatalf("no row for %q", is)
				}
				used[routingTable[row]] = true
				want := routingTable[row].method + ": " + strings.Replace(routingTable[row].reason, "driver D", "driver "+driver, 1)
				cfg := RoutingConfig{Files: files, LogDrivers: listed, Fallback: fallback, Streaming: streaming}
				route, reason := decideRoute(cfg, driver, readable)
				if kind == "listed" && !readable && cfg.fallsBack() != (files && route == routeStream) {
					t.Errorf("%+v falls back: %t", cfg, cfg.fallsBack())
				}
				if got := fmt.Sprintf("%s: %s", route.method(), reason); got != want {
					t.Errorf("%+v, driver %q, readable %t: %q instead of %q", cfg, driver, readable, got, want)
				}
			}
		}
	}
	for _, r := range routingTable {
		if !used[r] {
			t.Errorf("the row %q is never used", r)
		}
	}
}

// TestRoutingTableAsDocumented: what the comment promises is what is tested.
func TestRoutingTableAsDocumented(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "routing.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var got []routingRow
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "decideRoute" {
			for line := range strings.Lines(f.Doc.Text()) {
				c := strings.Split(line, "|")
				if len(c) != 7 {
					continue
				}
				for i := range c {
					c[i] = strings.TrimSpace(c[i])
				}
				got = append(got, routingRow{c[0], c[1], c[2], c[3], c[4], c[5], c[6]})
			}
		}
	}
	want := append([]routingRow{{"driver", "readable", "files", "fallback", "streaming", "method", "reason"}}, routingTable...)
	if !slices.Equal(got, want) {
		t.Errorf("the comment says %q\ninstead of %q", got, want)
	}
}
