package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheckInotify(t *testing.T) {
	filesOff := with(func(p *policy) { p.forecast.Routing.Files = false })
	ample := kernelFacts{Instances: 128, Watches: 8192, Events: 16384}
	failing := func(err error) kernelFacts {
		k := ample
		k.InotifyErr = err
		return k
	}
	for what, c := range map[string]struct {
		p     policy
		k     kernelFacts
		files int
		want  want
	}{
		"well":         {hybrid(), ample, 4096, want{OK, "4096 logs to watch; max_user_instances 128", ""}},
		"watches":      {hybrid(), ample, 4097, want{Warn, "max_user_watches is 8192, for 4097 logs", "max_user_watches=65536"}},
		"events":       {hybrid(), kernelFacts{Instances: 2, Watches: 100, Events: 39}, 10, want{Warn, "max_queued_events is 39", "max_queued_events=16384"}},
		"instances":    {hybrid(), failing(unix.EMFILE), 1, want{Warn, "used up the 128 instances", "max_user_instances=512"}},
		"watches used": {hybrid(), failing(unix.ENOSPC), 1, want{Warn, "used up the 8192 watches", "max_user_watches=65536"}},
		"forbidden":    {hybrid(), failing(unix.ENOSYS), 1, want{Warn, "function not implemented", "seccomp"}},
		"not known":    {hybrid(), kernelFacts{LimitsErr: errors.New("gone")}, 1, want{Warn, "gone", "/proc"}},
		"not used":     {filesOff, ample, 0, want{Skip, "off", ""}},
	} {
		is(t, what, checkInotify(c.p, c.k, c.files), c.want)
	}
}

func TestCheckDescriptors(t *testing.T) {
	for what, c := range map[string]struct {
		k              kernelFacts
		files, streams int
		want           want
	}{
		"well":      {kernelFacts{Descriptors: 1024}, 910, 50, want{OK, "1024 may be open here; 910 logs and 50 streams take about 1024", ""}},
		"too few":   {kernelFacts{Descriptors: 1024}, 911, 50, want{Warn, "take about 1025", "4096"}},
		"far":       {kernelFacts{Descriptors: 1024}, 9000, 0, want{Warn, "9000 logs", "18128"}},
		"not known": {kernelFacts{DescriptorsErr: errors.New("no")}, 1, 1, want{Warn, "no", "ulimit"}},
	} {
		is(t, what, checkDescriptors(c.k, c.files, c.streams), c.want)
	}
}

func TestGatherKernel(t *testing.T) {
	k := gatherKernel("/proc")
	if k.LimitsErr != nil || k.Instances <= 0 || k.Watches <= 0 || k.Events <= 0 || k.DescriptorsErr != nil || k.Descriptors == 0 {
		t.Errorf("%+v", k)
	}
	proc := t.TempDir()
	dir := filepath.Join(proc, "sys", "fs", "inotify")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"max_user_instances": "1\n", "max_user_watches": "2\n", "max_queued_events": "many\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if k := gatherKernel(proc); k.LimitsErr == nil || k.Instances != 1 || k.Watches != 2 {
		t.Errorf("%+v", k)
	}
}
