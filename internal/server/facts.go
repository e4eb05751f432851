package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// fact is one field of a component's state, in words.
type fact struct {
	Name  string `json:"-"`
	Label string `json:"label"`
	Value string `json:"value"`
	Tone  string `json:"tone,omitempty"`
	ago   string // of a moment: how long it is past
}

// find gives the fact of a field, an empty one if there is none.
func find(facts []fact, name string) fact {
	for _, f := range facts {
		if f.Name == name {
			return f
		}
	}
	return fact{}
}

// factsOf puts what a component says of itself into words, field by field in its
// order. The server does not know the components: it goes by the names of the
// fields, which end in the unit.
func factsOf(part any, now time.Time) ([]fact, error) {
	data, err := json.Marshal(part)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, fmt.Errorf("is no JSON object: %s", visible(string(data), maxName))
	}
	facts := []fact{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		facts = append(facts, factOf(fmt.Sprint(name), value, now))
	}
	return facts, nil
}

func factOf(name string, value any, now time.Time) fact {
	f := fact{Name: name}
	label := name
	switch v := value.(type) {
	case json.Number:
		n, err := v.Float64()
		switch {
		case err != nil || math.Abs(n) > 1<<53: // no whole number to be sure of
			f.Value = v.String()
		case strings.HasSuffix(name, "_seconds"):
			label, f.Value = strings.TrimSuffix(name, "_seconds"), span(n)
		case name == "bytes" || strings.HasSuffix(name, "_bytes"):
			f.Value = size(int64(n))
		default:
			f.Value = count(int64(n))
		}
	case bool:
		f.Value = map[bool]string{true: "yes", false: "no"}[v]
	case string:
		if t, err := time.Parse(time.RFC3339, v); err == nil {
			f.ago = span(now.Sub(t).Seconds()) + " ago"
			f.Value = f.ago + ", " + clock(t)
		} else {
			f.Value = visible(v, maxDetail)
		}
	case map[string]any:
		f.Value = listed(v)
	case nil:
		f.Value = "none"
	default: // a list
		f.Value = visible(strings.TrimSpace(fmt.Sprint(v)), maxDetail)
	}
	switch {
	case name == "state" && isState(f.Value):
		f.Tone = toneOf(f.Value)
	case name == "state" && f.Value == "full", name == "error", name == "last_error":
		f.Tone = toneBad
	case name == "state" && (f.Value == "filling" || f.Value == "draining"):
		f.Tone = toneWarn
	}
	label = visible(strings.ReplaceAll(label, "_", " "), maxName)
	f.Label = strings.ToUpper(label[:min(1, len(label))]) + label[min(1, len(label)):]
	return f
}

func isState(s string) bool {
	return s == string(StatusOK) || s == string(StatusDegraded) || s == string(StatusUnhealthy)
}

// listed gives names and values in one line.
func listed(m map[string]any) string {
	parts := make([]string, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s: %v", name, m[name]))
	}
	if len(parts) == 0 {
		return "none"
	}
	return visible(strings.Join(parts, ", "), maxDetail)
}
