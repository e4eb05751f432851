package doctor

import (
	"errors"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/internal/docker"
)

func TestCheckEngine(t *testing.T) {
	off := with(func(p *policy) { p.enabled = false })
	broken := errors.New("docker: ping at tcp://h:1: refused")
	for what, c := range map[string]struct {
		p    policy
		f    engineFacts
		want want
		api  want
	}{
		"well": {hybrid(), engineFacts{Host: "unix:///s", Announced: "1.41", Took: 3 * time.Millisecond, Info: docker.Info{ServerVersion: "20.10", APIVersion: "1.41"}},
			want{OK, "unix:///s answers in 3ms", ""}, want{OK, "Engine 20.10 with API 1.41", ""}},
		"newest":   {hybrid(), engineFacts{Announced: "1.100"}, want{OK, "answers", ""}, want{OK, "API 1.100", ""}},
		"unknown":  {hybrid(), engineFacts{Announced: "x"}, want{OK, "answers", ""}, want{OK, "", ""}},
		"slow":     {hybrid(), engineFacts{Announced: "1.40", Took: 2 * time.Second}, want{Warn, "2s", "busy"}, want{OK, "", ""}},
		"absent":   {hybrid(), engineFacts{Err: broken, Trouble: "/s does not exist", Remedy: "is Docker running?"}, want{Fail, "/s does not exist", "is Docker running?"}, want{Skip, "does not answer", ""}},
		"far":      {hybrid(), engineFacts{Err: broken}, want{Fail, "refused", "docker.host"}, want{Skip, "", ""}},
		"old":      {hybrid(), engineFacts{Announced: "1.39", InfoErr: broken}, want{OK, "", ""}, want{Fail, "API 1.39: 1.40 is needed", "19.03"}},
		"no info":  {hybrid(), engineFacts{Announced: "1.41", InfoErr: broken}, want{OK, "", ""}, want{Fail, "refused", "/info"}},
		"no list":  {hybrid(), engineFacts{Announced: "1.41", ListErr: broken}, want{OK, "", ""}, want{Fail, "refused", "/containers"}},
		"not used": {off, engineFacts{}, want{Skip, "monitors.container.enabled", ""}, want{Skip, "monitors.container.enabled", ""}},
	} {
		is(t, what, checkEngine(c.p, c.f), c.want)
		is(t, what+", API", checkAPI(c.p, c.f), c.api)
	}
}
