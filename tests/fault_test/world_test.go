package main

import "testing"

func TestConservation(t *testing.T) {
	const log = `level=INFO msg="log_capturer is starting"
level=INFO msg="spool holds lines of an earlier run: they are sent first" frames=2 records=70 bytes=1000
level=INFO msg="shipping begins"
level=INFO msg="configuration is read anew: what is under way is delivered, then the agent goes on with it"
level=INFO msg="spool holds lines of an earlier run: they are sent first" frames=1 records=30 bytes=1000
`
	m := map[string]float64{
		`log_capturer_lines_read_total{method="file_monitor"}`:                            100,
		`log_capturer_lines_read_total{method="streaming"}`:                               20,
		`log_capturer_logs_processed_total{method="file_monitor",result="delivered"}`:     110,
		`log_capturer_logs_processed_total{method="streaming",result="delivered"}`:        20,
		`log_capturer_logs_processed_total{method="file_monitor",result="dead_lettered"}`: 5,
		`log_capturer_logs_processed_total{method="file_monitor",result="spooled"}`:       1000,
		`log_capturer_lost_lines_total{reason="spool_unreadable"}`:                        2,
		`log_capturer_spool_records`:                                                      13,
	}
	c := newConservation(m, log)
	if !c.holds() || c.idle() {
		t.Errorf("%+v: holds %v, idle %v", c, c.holds(), c.idle())
	}
	for k := range m {
		if k == `log_capturer_logs_processed_total{method="file_monitor",result="spooled"}` {
			continue
		}
		m[k]--
		if c := newConservation(m, log); c.holds() {
			t.Errorf("one line less in %s is not noticed", k)
		}
		m[k]++
	}
	if spooledAtStart(log[:50]) != 0 || spooledAtStart("") != 0 {
		t.Error("lines found where there were none")
	}
}

func TestTold(t *testing.T) {
	for _, c := range []struct{ log, container string }{
		{`time=x level=WARN msg="log files were rotated away faster than they could be taken hold of: their lines are lost; larger" container=tiny1 files=3`, "tiny1"},
		{`time=x level=WARN msg="the file in which reading had stopped is gone: what was written to it afterwards is lost; larger" container=tiny1 path=/x`, "tiny1"},
		{`time=x level=WARN msg="container was removed before its log had been streamed to its end: its last lines may be lost; the" container=local1`, "local1"},
		{`time=x level=INFO msg="the connection is lost" container=tiny1`, ""},
		{`time=x level=WARN msg="tried again" container=tiny1`, ""},
	} {
		got := ""
		if m := told.FindStringSubmatch(c.log); len(m) > 1 {
			got = m[1]
		}
		if got != c.container {
			t.Errorf("%s: %q, want %q", c.log, got, c.container)
		}
	}
}

func TestChoose(t *testing.T) {
	all := scenarios()
	if got, err := choose(all, ""); err != nil || len(got) != len(all) {
		t.Errorf("%d scenarios, %v", len(got), err)
	}
	if got, err := choose(all, "store, kill"); err != nil || len(got) != 2 || got[0].name != "store" || got[1].name != "kill" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := choose(all, "kill,nothing"); err == nil {
		t.Error("an unknown scenario is no error")
	}
}
