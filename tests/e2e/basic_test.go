package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
)

func TestShips(t *testing.T) {
	d := harness.StartDockerd(t)
	s := harness.StartStore(t)
	id := d.Run(t, harness.ContainerSpec{Name: "before", Cmd: []string{"-lines", "1000", "-prefix", "A"}})
	d.Wait(t, id, 20*time.Second)
	a := harness.StartAgent(t, d.Host, s.PushURL(), "")
	id2 := d.Run(t, harness.ContainerSpec{Name: "after", Cmd: []string{"-lines", "1000", "-prefix", "B", "-stderr-every", "3"}})
	d.Wait(t, id2, 20*time.Second)
	harness.Eventually(t, 20*time.Second, "all lines", func() bool {
		s.Flush(t)
		n := s.Count(t, `{job="log_capturer"}`)
		return n >= 2000
	})
	for _, l := range s.Query(t, `{container_name="after"} | limit 2`) {
		fmt.Println(l)
	}
	_, h := a.Health()
	fmt.Println(h)
	for k, v := range a.Metrics() {
		if len(k) > 12 && k[:12] == "log_capturer" && v != 0 {
			fmt.Println(k, v)
		}
	}
	fmt.Println(a.Log())
}
