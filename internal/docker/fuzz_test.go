package docker

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// FuzzCutText: whatever a TTY's stream is, no text of it gets lost, and in which
// pieces it comes makes no difference.
func FuzzCutText(f *testing.F) {
	line := stamped(at(1), "x\n")
	f.Add([]byte(line+stamped(at(2), "y")+line), int64(0), []byte{1, 9, 40})
	f.Add([]byte(stamped(at(1), string(bytes.Repeat([]byte("a"), fragmentSize)))+stamped(at(1), "b\n")), int64(5), []byte{200})
	f.Add([]byte(line+grabError+"bad"), int64(0), []byte{3})
	f.Add([]byte(stamped(at(3), "an earlier run")+line), at(9).UnixNano(), []byte{64, 3})
	f.Fuzz(func(t *testing.T, in []byte, startedAt int64, sizes []byte) {
		read := func(next func() int) ([]got, error) {
			c := &ttyCutter{startedAt: startedAt, now: func() int64 { return at(1000).UnixNano() }}
			return drain(t, stream(&chopped{bytes.NewReader(in), next}, 16, c.cutText))
		}
		i := 0
		all, err := read(func() int {
			if len(sizes) == 0 {
				return 1
			}
			i++
			return int(sizes[i%len(sizes)])
		})
		whole, wholeErr := read(func() int { return len(in) })
		if !reflect.DeepEqual(all, whole) {
			t.Fatalf("in pieces %s, at once %s", clip(all), clip(whole))
		}
		var d, wholeD *DaemonError
		if errors.As(err, &d) != errors.As(wholeErr, &wholeD) || errors.Is(err, ErrProtocol) != errors.Is(wholeErr, ErrProtocol) {
			t.Fatalf("in pieces %v, at once %v", err, wholeErr)
		}
		rest := in
		for _, g := range all {
			// What is between the texts is times.
			_, n := stamp(rest)
			if !bytes.HasPrefix(rest[n:], []byte(g.text)) {
				t.Fatalf("%.60q is not what comes next, which is %.60q", g.text, rest)
			}
			rest = rest[n+len(g.text):]
		}
	})
}

// FuzzEvent: whatever an engine sends as an event is one that is watched, or
// none; labels of the container do not pass for what Docker says.
func FuzzEvent(f *testing.F) {
	f.Add(`{"Type":"container","Action":"die","Actor":{"ID":"a","Attributes":{"exitCode":"137","name":"/web","image":"i","x":"y"}},"timeNano":5}`)
	f.Add(`{"Type":"container","Action":"rename","Actor":{"ID":"a","Attributes":{"oldName":"b","name":"c"}},"time":1}`)
	f.Add(`{"Type":"image","Action":"pull","Actor":{"ID":"a"}}`)
	f.Add(`{"Type":"container","Action":"start","Actor":{"ID":"a","Attributes":null}}`)
	f.Fuzz(func(t *testing.T, in string) {
		var m events.Message
		if json.Unmarshal([]byte(in), &m) != nil {
			return
		}
		before := len(m.Actor.Attributes)
		e, ok := toEvent(m)
		if !ok {
			if !reflect.DeepEqual(e, Event{}) {
				t.Errorf("no event, and yet %+v", e)
			}
			return
		}
		if e.ID == "" || !slices.Contains(watchedActions(), e.Action) || e.Action != ActionDie && e.ExitCode != -1 {
			t.Errorf("%+v", e)
		}
		for name, value := range e.Labels {
			if name == "image" || name == "name" || m.Actor.Attributes[name] != value {
				t.Errorf("label %q is %q", name, value)
			}
		}
		if len(m.Actor.Attributes) != before {
			t.Error("the message was changed")
		}
	})
}

// FuzzInspect: whatever an engine says of a container, what is known of it is
// taken over, and nothing that is absent is made use of.
func FuzzInspect(f *testing.F) {
	f.Add(`{"Id":"a","Name":"/web","Image":"sha256:0f","Created":"2025-11-07T12:00:00Z","LogPath":"/l","Config":{"Image":"i:1","Labels":{"a":"b"},"Tty":true,"Env":["PASSWORD=s3cret"]},
		"HostConfig":{"LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}}},"State":{"Status":"running","Running":true,"StartedAt":"2025-11-07T12:00:00.5Z","FinishedAt":"0001-01-01T00:00:00Z"}}`)
	f.Add(`{"Created":"yesterday","State":{"StartedAt":"","FinishedAt":"9999-99-99"}}`)
	f.Add(`{"Config":null,"HostConfig":null,"State":null}`)
	f.Fuzz(func(t *testing.T, in string) {
		var r container.InspectResponse
		if json.Unmarshal([]byte(in), &r) != nil {
			return
		}
		c := toContainer(r)
		if c.ID != r.ID || c.LogPath != r.LogPath {
			t.Errorf("%+v", c)
		}
		if r.HostConfig != nil && c.Driver != r.HostConfig.LogConfig.Type || r.HostConfig == nil && c.Driver != "" {
			t.Errorf("driver %q", c.Driver)
		}
		for _, when := range []time.Time{c.Created, c.StartedAt, c.FinishedAt} {
			if when.IsZero() != when.Equal(time.Time{}) || when.Year() < 0 {
				t.Errorf("%+v", c)
			}
		}
	})
}
