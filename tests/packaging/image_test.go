package packaging

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/log-capturer/log_capturer/tests/harness"
	"github.com/log-capturer/log_capturer/tests/logwriter/lines"
)

// buildImage builds the image with the docker command, from the binary that all tests
// use, and gives its name. No other image is there, and none can be pulled.
func buildImage(t *testing.T, docker func(args ...string) string, port string) {
	t.Helper()
	dir := t.TempDir()
	ca, config := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "config.yaml")
	context := filepath.Join(dir, "context")
	if err := os.MkdirAll(filepath.Join(context, "bin", "image"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		ca: "-----BEGIN CERTIFICATE-----\n",
		// The tests of the documents, and who runs an agent here, have the usual port.
		config:                                  replaced(t, harness.ReadFile(t, "configs/config.yaml"), "port: 8401", "port: "+port),
		filepath.Join(context, ".dockerignore"): harness.ReadFile(t, ".dockerignore"),
		filepath.Join(context, "Dockerfile"):    harness.ReadFile(t, "Dockerfile"),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command(t, nil, "go", "run", "./scripts/rootfs", "-bin", agentBin(t), "-config", config, "-ca", ca,
		"-o", filepath.Join(context, "bin", "image", "rootfs.tar"))
	docker("build", "--quiet", "--tag", "log_capturer", context)
}

// freePort gives a port of loopback that nothing listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestImage builds the image and runs it as the README says, on a real engine whose
// containers write: it is nobody with one capability, all lines arrive and its own
// do not, it is healthy, it stops when it is asked to.
func TestImage(t *testing.T) {
	harness.NeedDocker(t)
	cli := need(t, "docker")
	d := harness.StartDockerd(t)
	s := harness.StartStore(t)
	// The builder that every engine has; others need a plug-in.
	env := []string{"DOCKER_HOST=" + d.Host, "DOCKER_BUILDKIT=0"}
	docker := func(args ...string) string { return strings.TrimSpace(command(t, env, cli, args...)) }
	port := freePort(t)
	buildImage(t, docker, port)

	want := map[string][]string{}
	var wrote []string
	for _, c := range []struct{ name, driver, kind string }{
		{"web", "json-file", lines.Plain},
		{"long", "json-file", lines.Long},
		{"db", "local", lines.Plain}, // is streamed
	} {
		n := 500
		for i := 1; i <= n; i++ {
			want[c.name] = append(want[c.name], lines.Line(c.kind, c.name, i, 0))
		}
		spec := harness.ContainerSpec{Name: c.name, Driver: c.driver, Cmd: []string{"-prefix", c.name, "-kind", c.kind, "-lines", strconv.Itoa(n), "-rate", "400"}}
		wrote = append(wrote, d.Run(t, spec))
	}
	private(t, d.LogPath(wrote[0]))

	socket := strings.TrimPrefix(d.Host, "unix://")
	run := replaced(t, documented(t, "README.md", "docker run "),
		"docker run ", cli+" run --health-interval 500ms ",
		"/var/run/docker.sock)", socket+")",
		"/var/run/docker.sock:", socket+":",
		"/var/lib/docker/containers", d.ContainersDir(),
		"LOKI_URL=http://127.0.0.1:3100", "LOKI_URL='"+s.PushURL()+"'")
	id := strings.TrimSpace(command(t, env, "bash", "-c", run))
	inspect := func(format string) string { return docker("inspect", "--format", format, id) }

	harness.Eventually(t, 60*time.Second, "the container is healthy", func() bool { return inspect("{{.State.Health.Status}}") == "healthy" })
	pid, err := strconv.Atoi(inspect("{{.State.Pid}}"))
	if err != nil {
		t.Fatal(err)
	}
	restricted(t, pid, 65532)

	got := func(name string) []string {
		var all []string
		for _, r := range s.Query(t, fmt.Sprintf(`{container_name=%q} | fields _msg`, name)) {
			all = append(all, r["_msg"])
		}
		return all
	}
	arrived := func(name string) bool {
		all := got(name)
		slices.Sort(all)
		slices.Sort(want[name])
		return slices.Equal(all, want[name])
	}
	for name := range want {
		if !harness.Within(60*time.Second, func() bool { return arrived(name) }) {
			t.Errorf("%s wrote %d lines, %d have arrived", name, len(want[name]), len(got(name)))
		}
	}
	methods := map[string]string{}
	for _, c := range captured(t, port) {
		methods[c.Name] = c.Method
	}
	for name, method := range map[string]string{"web": "file_monitor", "long": "file_monitor", "db": "streaming", "log_capturer": "none"} {
		if methods[name] != method {
			t.Errorf("%s is captured by %q, want %q", name, methods[name], method)
		}
	}

	// From within, by the name alone.
	inside := strings.TrimPrefix(documented(t, "README.md", "docker exec "), "docker ") + " --url http://127.0.0.1:" + port
	if table := docker(strings.Fields(inside)...); !strings.Contains(table, "\nweb ") {
		t.Errorf("docker %s shows\n%s", inside, table)
	}

	// An agent that hangs is unhealthy, and the check says so in time.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	saysSo := func() bool {
		return strings.Contains(inspect("{{json .State.Health.Log}}"), "has not answered within 3s")
	}
	if !harness.Within(60*time.Second, saysSo) {
		t.Errorf("an agent that hangs: %s", inspect("{{json .State.Health}}"))
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}

	// It goes on where it was: what is in the volume has survived the container.
	began := time.Now()
	docker("stop", id)
	if took := time.Since(began); took > 8*time.Second || inspect("{{.State.ExitCode}}") != "0" {
		t.Errorf("docker stop took %v, exit status %s", took, inspect("{{.State.ExitCode}}"))
	}
	docker("rm", id)
	d.StartContainer(t, wrote[0])
	want["web"] = append(want["web"], want["web"]...) // it writes them once more
	id = strings.TrimSpace(command(t, env, "bash", "-c", run))
	if !harness.Within(60*time.Second, func() bool { return arrived("web") }) {
		t.Errorf("with a new container of the agent's %d lines have arrived, want %d", len(got("web")), len(want["web"]))
	}

	// What it logs itself is not captured: each line shipped would make another.
	if own := command(t, env, "bash", "-c", cli+" logs "+id+" 2>&1"); !strings.Contains(own, "log_capturer is starting") {
		t.Errorf("the agent's own log: %q", own)
	}
	if own := got("log_capturer"); len(own) > 0 {
		t.Errorf("the agent ships its own log: %q", own)
	}
	docker("stop", id)
	t.Run("as Kubernetes runs it", func(t *testing.T) { asKubernetes(t, docker, d, s.PushURL()) })
}

// asKubernetes runs the image as the DaemonSet does: as user 0 without new
// privileges, with a directory of the host's that is root's, and without the group of
// the socket. All power of root's that is left is to read.
func asKubernetes(t *testing.T, docker func(args ...string) string, d *harness.Dockerd, store string) {
	dir, port := t.TempDir(), freePort(t)
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte(replaced(t, harness.ReadFile(t, "deploy/kubernetes/base/config.yaml"), "port: 8401", "port: "+port)), 0o600); err != nil {
		t.Fatal(err)
	}
	// What the kubelet mounts into each container; and the container that the agent
	// had before a restart, whose log is its own, too.
	const uid = "fd698699-eabf-4c23-92ef-cf0bbdb78261"
	message := filepath.Join(dir, "pods", uid, "containers", "log-capturer", "fc4135aa")
	if err := os.MkdirAll(filepath.Dir(message), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(message, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"io.kubernetes.pod.uid": uid, "io.kubernetes.container.name": "log-capturer"}
	d.Run(t, harness.ContainerSpec{Name: "k8s_log-capturer_pod_0", Labels: labels, Cmd: []string{"-lines", "1"}})
	id := docker("run", "--detach", "--name", "k8s_log-capturer_pod_1", "--network", "host",
		"--label", "io.kubernetes.pod.uid="+uid, "--label", "io.kubernetes.container.name=log-capturer", "--volume", message+":/dev/termination-log",
		"--user", "0:0", "--security-opt", "no-new-privileges", "--cap-drop", "ALL", "--cap-add", "DAC_READ_SEARCH", "--read-only",
		"--env", "LOKI_URL="+store, "--env", "NODE_NAME=node-1",
		"--volume", config+":/etc/log_capturer/config.yaml:ro", "--volume", filepath.Join(dir, "data")+":/var/lib/log_capturer",
		"--volume", strings.TrimPrefix(d.Host, "unix://")+":/var/run/docker.sock", "--volume", d.ContainersDir()+":"+d.ContainersDir()+":ro",
		"log_capturer")
	pid, err := strconv.Atoi(docker("inspect", "--format", "{{.State.Pid}}", id))
	if err != nil {
		t.Fatal(err)
	}
	restricted(t, pid, 0)
	var all []containerInfo
	if !harness.Within(60*time.Second, func() bool {
		all = captured(t, port)
		return slices.ContainsFunc(all, func(c containerInfo) bool {
			return c.Name == "web" && c.Method == "file_monitor" && c.LinesDelivered > 0
		})
	}) {
		t.Errorf("it captures %+v", all)
	}
	for _, c := range all {
		if strings.HasPrefix(c.Name, "k8s_log-capturer_pod") && c.Method != "none" {
			t.Errorf("its own container %s is captured by %s", c.Name, c.Method)
		}
	}
	docker("stop", id)
}

// private fails the test unless a log file is as Docker makes it: for root only.
func private(t *testing.T, log string) {
	t.Helper()
	for path, mode := range map[string]os.FileMode{log: 0o640, filepath.Dir(log): os.ModeDir | 0o710} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || info.Mode() != mode || st.Uid != 0 || st.Gid != 0 {
			t.Fatalf("%s has mode %v, owner %d:%d", path, info.Mode(), st.Uid, st.Gid)
		}
	}
}

// restricted fails the test unless a process is this user, with
// CAP_DAC_READ_SEARCH and nothing to be had beside it.
func restricted(t *testing.T, pid, uid int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	status := map[string]string{}
	for l := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(l, ":")
		status[key] = strings.Join(strings.Fields(value), " ")
	}
	user := strconv.Itoa(uid)
	const readSearch = "0000000000000004"
	for key, want := range map[string]string{
		"Uid": strings.Join([]string{user, user, user, user}, " "), "CapPrm": readSearch, "CapEff": readSearch, "CapBnd": readSearch,
	} {
		if status[key] != want {
			t.Errorf("process %d has %s %q, want %q", pid, key, status[key], want)
		}
	}
}

type containerInfo struct {
	Name, Method   string
	LinesDelivered int `json:"lines_delivered"`
}

// captured asks an agent how it captures containers; nil while it does not answer.
func captured(t *testing.T, port string) []containerInfo {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://127.0.0.1:" + port + "/api/v1/containers")
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	var answer struct{ Containers []containerInfo }
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return answer.Containers
}
