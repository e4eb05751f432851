package docker

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAnnounced: also a version that is too old to talk to is told.
func TestAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine(t)
		c := e.client(t)
		for _, version := range []string{"1.41", "1.24"} {
			e.set(func() { e.version = version })
			if got, err := c.Announced(t.Context()); got != version || err != nil {
				t.Errorf("%q, %v, want %q", got, err, version)
			}
		}
		if _, err := c.Info(t.Context()); err == nil || !strings.Contains(err.Error(), MinAPIVersion) {
			t.Errorf("an old engine: %v", err)
		}
		e.set(func() { e.hooks["/_ping"] = hang })
		began := time.Now()
		if got, err := c.Announced(t.Context()); !IsUnavailable(err) || time.Since(began) != callTimeout {
			t.Errorf("hangs: %q, %v after %v", got, err, time.Since(began))
		}
		e.set(func() { e.refuse = true })
		if got, err := c.Announced(t.Context()); !IsUnavailable(err) {
			t.Errorf("refused: %q, %v", got, err)
		}
	})
}

// TestSocketTrouble: what is wrong and what to do are two things.
func TestSocketTrouble(t *testing.T) {
	dir := t.TempDir()
	for host, want := range map[string]struct{ what, remedy string }{
		"unix://" + dir + "/none": {dir + "/none does not exist", "is Docker running?"},
		"unix://" + dir:           {dir + " is a directory", "remove the directory"},
		"tcp://h:1":               {},
	} {
		what, remedy := SocketTrouble(host, errors.New("refused"))
		if what != want.what || !strings.Contains(remedy, want.remedy) || (what == "") != (remedy == "") {
			t.Errorf("%s: %q, %q, want %+v", host, what, remedy, want)
		}
	}
}
