package doctor

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/log-capturer/log_capturer/internal/monitors"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// want is what a check should come to: words of its message and of its remedy.
type want struct {
	status          Status
	message, remedy string
}

// is compares a check with what it should be. Who fails or warns says what to do,
// and nobody else does.
func is(t *testing.T, what string, got Check, w want) {
	t.Helper()
	if got.Status != w.status || !strings.Contains(got.Message, w.message) || !strings.Contains(got.Remedy, w.remedy) {
		t.Errorf("%s: %+v, want %+v", what, got, w)
	}
	if got.Name == "" || got.Message == "" || (got.Remedy != "") != (got.Status >= Warn) {
		t.Errorf("%s: %+v has no name, no message, no remedy, or one too many", what, got)
	}
}

// hybrid is the policy by default.
func hybrid() policy {
	return policy{enabled: true, maxStream: 50, forecast: monitors.Forecast{
		Routing: monitors.RoutingConfig{Files: true, LogDrivers: []string{"json-file"}, Fallback: true, Streaming: true},
		RootDir: "/var/lib/docker",
	}}
}

// with changes a policy.
func with(change func(*policy)) policy {
	p := hybrid()
	change(&p)
	return p
}
