package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/deadletter"
	"github.com/log-capturer/log_capturer/internal/lokitest"
)

// deadAt is when the first of a test's dead letters was put there.
var deadAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// deadRecords are five: of two containers, of each kind, one of them a copy.
func deadRecords() []deadletter.Record {
	record := func(i int, kind deadletter.Kind, container, stream, reason, raw string) deadletter.Record {
		return deadletter.Record{
			Time: deadAt.Add(time.Duration(i) * time.Hour), Kind: kind, ContainerID: strings.Repeat(string(container[0]), 64), ContainerName: container,
			Stream: stream, LineTime: deadAt.Add(-time.Minute + time.Duration(i)), Reason: reason, Raw: []byte(raw),
			Labels: map[string]string{"container_name": container, "stream": stream, "job": "log_capturer"}, Metadata: map[string]string{"container_id": container},
		}
	}
	all := []deadletter.Record{
		record(0, deadletter.Refused, "web", "stdout", "timestamp too old, oldest acceptable timestamp is: 2026-01-01T00:00:00.5Z", "one"),
		record(1, deadletter.Refused, "web", "stderr", "timestamp too old, oldest acceptable timestamp is: 2026-01-01T01:00:00Z", "two"),
		record(2, deadletter.Malformed, "db", "", "malformed", "garbage"),
		record(3, deadletter.Refused, "db", "stdout", "line too long, max entry size is 10 bytes", strings.Repeat("long ", 20)),
		record(4, deadletter.Malformed, "web", "", "malformed", "copy"),
	}
	all[2].Labels = map[string]string{"container_name": "db", "malformed": "true", "job": "log_capturer"}
	return all
}

// deadDir is a data_dir with records, the last of which is a copy.
func deadDir(t *testing.T, records ...deadletter.Record) string {
	t.Helper()
	dir := t.TempDir()
	l, err := deadletter.Open(dir, deadletter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	last := len(records) - 1
	if err := l.Append(records[:last]); err != nil {
		t.Fatal(err)
	}
	l.AppendUnsynced(records[last:])
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// deadConfig is a configuration for a data_dir and a store.
func deadConfig(t *testing.T, dir, url string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	text := fmt.Sprintf("host: here\ndata_dir: %s\nlog: {level: error}\nsinks: {loki: {url: %q, labels: {env: prod}, timeout: 5s}}\n", dir, url)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const deadHeader = "TIME                  CONTAINER  KIND       REASON                                                        SIZE  TEXT\n"

var deadRows = []string{
	"2026-01-02T03:04:05Z  web        refused    timestamp too old, oldest acceptable timestamp is: 2026-01-…  3     one\n",
	"2026-01-02T04:04:05Z  web        refused    timestamp too old, oldest acceptable timestamp is: 2026-01-…  3     two\n",
	"2026-01-02T05:04:05Z  db         malformed  malformed                                                     7     garbage\n",
	"2026-01-02T06:04:05Z  db         refused    line too long, max entry size is 10 bytes                     100   long long long long long long long long long long long long…\n",
	"2026-01-02T07:04:05Z  web        malformed  malformed                                                     4     copy\n",
}

func TestDLQList(t *testing.T) {
	dir := deadDir(t, deadRecords()...)
	file := filepath.Join(dir, "dead_letters", "dead_letters.jsonl")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	records := strings.SplitAfter(string(text), "\n")
	for _, c := range []struct {
		args string
		want string
	}{
		{"", deadHeader + strings.Join(deadRows, "")},
		{"--container db --kind refused", "TIME                  CONTAINER  KIND     REASON                                     SIZE  TEXT\n" +
			"2026-01-02T06:04:05Z  db         refused  line too long, max entry size is 10 bytes  100   long long long long long long long long long long long long…\n"},
		{"--container nosuch", "TIME  CONTAINER  KIND  REASON  SIZE  TEXT\n"},
		{"--container wwww --since 2026-01-02T07:00:00Z", "TIME                  CONTAINER  KIND       REASON     SIZE  TEXT\n" +
			"2026-01-02T07:04:05Z  web        malformed  malformed  4     copy\n"},
		{"--since 1ns", "TIME  CONTAINER  KIND  REASON  SIZE  TEXT\n"},
		{"--limit 1", "TIME                  CONTAINER  KIND       REASON     SIZE  TEXT\n" +
			"2026-01-02T07:04:05Z  web        malformed  malformed  4     copy\n"},
		{"--limit 100", deadHeader + strings.Join(deadRows, "")},
		{"--limit 2 --json", records[3] + records[4]},
		{"--json", string(text)},
		{"--json --kind malformed", records[2] + records[4]},
		{"--summary", `CONTAINER  KIND       REASON                                                RECORDS  BYTES  OLDEST                NEWEST
web        refused    timestamp too old, oldest acceptable timestamp is: …  2        6      2026-01-02T03:04:05Z  2026-01-02T04:04:05Z
db         malformed  malformed                                             1        7      2026-01-02T05:04:05Z  2026-01-02T05:04:05Z
db         refused    line too long, max entry size is 10 bytes             1        100    2026-01-02T06:04:05Z  2026-01-02T06:04:05Z
web        malformed  malformed                                             1        4      2026-01-02T07:04:05Z  2026-01-02T07:04:05Z
`},
	} {
		args := append([]string{"list", "--data-dir", dir}, strings.Fields(c.args)...)
		if status, out, stderr := subcommand(t, "dlq", args...); status != 0 || out != c.want || stderr != "" {
			t.Errorf("%q: status %d, %q\n%s\nwant\n%s", c.args, status, stderr, out, c.want)
		}
	}
	// By the configuration; an agent is in the middle of a write.
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("no record\n{\"time\":\"2026-01"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	status, out, stderr := subcommand(t, "dlq", "list", "--config", deadConfig(t, dir, "http://h"))
	if want := "log_capturer: lines in the files that are no records, and were left out: 1\n"; status != 0 || out != deadHeader+strings.Join(deadRows, "") || stderr != want {
		t.Errorf("status %d, %q\n%s", status, stderr, out)
	}
}

// TestDLQHostileText: nothing that a container has written does anything to a
// terminal.
func TestDLQHostileText(t *testing.T) {
	const evil = "a\x1b[2J\tb\nc\u009b31m\x7f\u202e\r\xff"
	dir := deadDir(t, deadletter.Record{Kind: evil, ContainerName: evil, Reason: evil, Raw: []byte(evil)}, deadletter.Record{Kind: "x", ContainerID: "0123456789abcdef"})
	for _, how := range []string{"", "--json", "--summary"} {
		_, out, _ := subcommand(t, "dlq", strings.Fields("list --data-dir "+dir+" "+how)...)
		if i := strings.IndexAny(out, "\x1b\t\u009b\x7f\u202e\r"); i >= 0 || strings.Count(out, "\n") < 2 {
			t.Errorf("%s: at %d a raw control character in %q", how, i, out)
		}
		if how == "" && (strings.Count(out, "a?[2J?b?c?31m???") != 4 || !strings.Contains(out, "  0123456789ab  ")) {
			t.Errorf("got\n%s", out)
		}
	}
}

// TestDLQCommandLine: mistakes are told before anything is done.
func TestDLQCommandLine(t *testing.T) {
	ok, bad := files(t)
	for _, c := range []struct {
		args, want string
		status     int
	}{
		{"", "log_capturer: dlq: list or replay\n", 2},
		{"lsit", "log_capturer: dlq: unexpected argument \"lsit\"\n", 2},
		{"list x", "log_capturer: list: unexpected argument \"x\"\n", 2},
		{"replay x", "log_capturer: replay: unexpected argument \"x\"\n", 2},
		{"list --kind bad", "log_capturer: dlq list: --kind \"bad\": one of refused, malformed\n", 2},
		{"list --since yesterday", "log_capturer: dlq list: --since \"yesterday\": an age such as 24h, or a time such as 20", 2},
		{"list --since -1h", "log_capturer: dlq list: --since \"-1h\": an age", 2},
		{"list --container [a", "log_capturer: dlq list: --container: \"[a\" is no pattern", 2},
		{"list --limit -1", "log_capturer: dlq list: --limit -1: 0, which is no limit, or more\n", 2},
		{"list --json --summary", "log_capturer: dlq list: --json and --summary: only one", 2},
		{"list --config " + ok + " --data-dir x", "log_capturer: dlq list: --config and --data-dir both", 2},
		{"list --config " + bad, bad + ":1: host: is a list", 2},
		{"list --nosuch", "log_capturer: flag provided but not defined: -nosuch\n", 2},
		{"list --data-dir " + ok + ".none", "log_capturer: dlq list: read the dead letters (is it the agent's data_dir?): stat ", 1},
		{"replay --kind bad", "log_capturer: dlq replay: --kind \"bad\"", 2},
		{"replay --config " + bad, bad + ":1: host: is a list", 2},
		{"replay --config " + ok, "log_capturer: dlq replay: " + ok + " names no store: set sinks.loki.url\n", 2},
		{"replay --config " + deadConfig(t, ok+".none", "http://h"), "log_capturer: dlq replay: replay dead letters (is it the agent's data_dir?): stat ", 1},
	} {
		status, out, stderr := subcommand(t, "dlq", strings.Fields(c.args)...)
		if status != c.status || !strings.HasPrefix(stderr, c.want) || status == 2 && out != "" {
			t.Errorf("%s: status %d, %q, %q; want %d, %q", c.args, status, out, stderr, c.status, c.want)
		}
	}
}

func TestDLQCannotBeWritten(t *testing.T) {
	dir := deadDir(t, deadRecords()...)
	for _, how := range []string{"", "--json", "--summary"} {
		f := newFixture(nil)
		f.program.out = failingWriter{}
		if status := f.main(t.Context(), strings.Fields("log_capturer dlq list --data-dir "+dir+" "+how)); status != 1 || !strings.Contains(f.err.String(), "no space") {
			t.Errorf("%s: got %d, %s", how, status, &f.err)
		}
	}
	f := newFixture(nil)
	f.program.out = failingWriter{}
	if status := f.main(t.Context(), []string{"log_capturer", "dlq", "replay", "--dry-run", "--config", deadConfig(t, dir, "http://h")}); status != 1 || !strings.Contains(f.err.String(), "no space") {
		t.Errorf("got %d, %s", status, &f.err)
	}
}

// lokiAt is a stand-in for Loki by whose clock the dead letters are new.
func lokiAt(t *testing.T, limits func(*lokitest.Limits)) *lokitest.Server {
	t.Helper()
	o := lokitest.Default()
	o.Now = func() time.Time { return deadAt }
	if limits != nil {
		limits(&o.Limits)
	}
	l := lokitest.New(o)
	t.Cleanup(l.Close)
	return l
}

// TestDLQReplay: a store refuses one line again; then it takes that, too, and
// nothing is sent twice.
func TestDLQReplay(t *testing.T) {
	records := deadRecords()
	records[1].Labels = nil // of an older version
	dir := deadDir(t, records...)
	l := lokiAt(t, func(l *lokitest.Limits) { l.MaxLine = 10 })
	config := deadConfig(t, dir, l.URL)
	const left = "left out, copies of malformed lines that were shipped (--copies sends them): 1\n"
	step := func(wantStatus int, wantOut, wantErr string, args ...string) {
		t.Helper()
		status, out, stderr := subcommand(t, "dlq", append([]string{"replay", "--config", config}, args...)...)
		if status != wantStatus || out != wantOut || stderr != wantErr {
			t.Errorf("%q: status %d, %q\n%s\nwant %d\n%s", args, status, stderr, out, wantStatus, wantOut)
		}
	}
	step(0, "would be sent: 4\n  of them without labels of their own, with those of the configuration instead: 1\n"+left, "", "--dry-run")
	if n := len(l.Requests()); n != 0 {
		t.Fatalf("a dry run has made %d requests", n)
	}
	step(0, "sent and accepted: 1\n", "", "--container", "db", "--kind", "malformed")
	step(1, "sent and accepted: 2\n  of them without labels of their own, with those of the configuration instead: 1\n"+
		"left out, an earlier replay has sent them: 1\n"+left+"not accepted, kept: db: line too long, max entry size is 10 bytes: 1\n", "")
	_, out, _ := subcommand(t, "dlq", "list", "--config", config, "--kind", "refused")
	if strings.Count(out, "\n") != 2 || !strings.Contains(out, "db         refused") {
		t.Errorf("what is left is\n%s", out)
	}
	if _, out, _ := subcommand(t, "dlq", "list", "--config", config, "--all"); out != deadHeader+strings.Join(deadRows, "") {
		t.Errorf("all are\n%s", out)
	}
	l.SetLimits(lokitest.DefaultLimits())
	step(0, "sent and accepted: 1\nleft out, an earlier replay has sent them: 3\n"+left, "")
	requests := len(l.Requests())
	step(0, "sent and accepted: 0\nleft out, an earlier replay has sent them: 4\n"+left, "")
	if n := len(l.Requests()); n != requests {
		t.Errorf("the last replay has made %d requests", n-requests)
	}
	step(0, "sent and accepted: 1\nleft out, an earlier replay has sent them: 4\n", "", "--copies")

	var got []string
	for _, line := range l.Lines() {
		got = append(got, fmt.Sprint(line.Time.Sub(deadAt), " ", line.Stream, " ", line.Metadata["container_id"], " ", line.Text))
	}
	slices.Sort(got)
	want := []string{
		`-59.999999996s {container_name="web", job="log_capturer", stream=""} web copy`,
		`-59.999999997s {container_name="db", job="log_capturer", stream="stdout"} db ` + strings.Repeat("long ", 20),
		`-59.999999998s {container_name="db", job="log_capturer", malformed="true"} db garbage`,
		`-59.999999999s {container_name="web", env="prod", host="here", job="log_capturer", stream="stderr"} web two`,
		`-1m0s {container_name="web", job="log_capturer", stream="stdout"} web one`,
	}
	want[0] = strings.Replace(want[0], `, stream=""`, "", 1) // a label without a value is none
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("stored\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestDLQReplayWithoutAStore: status 1, and everything stays.
func TestDLQReplayWithoutAStore(t *testing.T) {
	dir := deadDir(t, deadRecords()...)
	l := lokiAt(t, nil)
	l.Always(&lokitest.Fault{Status: 401, Body: "no org id"})
	status, out, stderr := subcommand(t, "dlq", "replay", "--config", deadConfig(t, dir, l.URL), "--container", "web", "--kind", "refused")
	if status != 1 || !strings.HasPrefix(out, "sent and accepted: 0\nnot accepted, kept: web: push to ") || !strings.Contains(out, "401: no org id (check credentials and tenant_id): 2\n") || stderr != "" {
		t.Errorf("status %d, %q, %q", status, out, stderr)
	}
	if _, out, _ := subcommand(t, "dlq", "list", "--data-dir", dir); out != deadHeader+strings.Join(deadRows, "") {
		t.Errorf("left is\n%s", out)
	}

	// A signal ends the pauses of one that cannot be reached.
	reached := make(chan struct{})
	l.Always(&lokitest.Fault{Status: 500, Body: "empty ring", Reached: reached})
	f := newFixture(nil)
	done := make(chan int)
	go func() {
		done <- f.main(t.Context(), []string{"log_capturer", "dlq", "replay", "--config", deadConfig(t, dir, l.URL)})
	}()
	<-reached
	f.signals <- syscall.SIGHUP
	f.signals <- syscall.SIGTERM
	go func() {
		for range reached { // should it be asked again meanwhile
		}
	}()
	if status := <-done; status != 1 || !strings.Contains(f.err.String(), "dlq replay: replay was stopped: signal: terminated\n") || !f.stopped {
		t.Errorf("status %d, %s%s", status, &f.out, &f.err)
	}
	close(reached)
}

// TestDLQReplayKilled: killed when the store has taken a batch and not yet
// answered, a replay has that batch sent again by the next, and no other.
func TestDLQReplayKilled(t *testing.T) {
	var records []deadletter.Record
	for i := range 10 {
		r := deadRecords()[0]
		r.Raw, r.LineTime = fmt.Appendf(nil, "%d %s", i, strings.Repeat("x", 30_000)), deadAt.Add(time.Duration(i))
		records = append(records, r)
	}
	dir := deadDir(t, append(records, deadRecords()[4])...)
	l := lokiAt(t, nil)
	reached := make(chan struct{}, 1)
	l.Next(lokitest.Fault{}, lokitest.Fault{Store: true, Hang: true, Reached: reached})
	config := deadConfig(t, dir, l.URL)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("timeout: 5s"), []byte("batch_bytes: 64KiB"), 1) // two lines
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "dlq", "replay", "-config", config)
	cmd.Env = append(os.Environ(), actAs+"=drains", noRaceDelay)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-reached
	// The store has the lines once the request is recorded.
	for len(l.Requests()) < 2 && ctx.Err() == nil {
		runtime.Gosched()
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	first := len(l.Texts())

	status, out, stderr := subcommand(t, "dlq", "replay", "--config", config)
	if status != 0 || stderr != "" || !strings.HasPrefix(out, "sent and accepted: 8\nleft out, an earlier replay has sent them: 2\n") {
		t.Errorf("status %d, %q, %q", status, out, stderr)
	}
	requests := 0
	for _, r := range l.Requests() {
		requests += r.Lines
	}
	counts := map[string]int{}
	for _, text := range l.Texts() {
		counts[text[:1]]++
	}
	if first != 4 || len(counts) != 10 || requests != 12 {
		t.Errorf("%d lines at the kill, %d sent in all: %v", first, requests, counts)
	}
	if status, out, _ := subcommand(t, "dlq", "replay", "--config", config); status != 0 || !strings.HasPrefix(out, "sent and accepted: 0\n") {
		t.Errorf("once more: status %d, %q", status, out)
	}
}
