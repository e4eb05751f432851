package manifests

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const (
	deploy   = "../../deploy"
	stageKey = "log-capturer/rollout"
)

// overlays are the stages of a rollout, in their order.
var overlays = []string{"canary-10", "canary-50", "full"}

// manifests are the objects of an overlay.
type manifests struct {
	namespace *corev1.Namespace
	account   *corev1.ServiceAccount
	daemonSet *appsv1.DaemonSet
	config    map[string]*corev1.ConfigMap
}

// build runs kustomize on an overlay, and decodes what it gives into the types of
// Kubernetes' API: an unknown key, a key twice or a wrong type is an error.
func build(t *testing.T, overlay string) manifests {
	t.Helper()
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).
		Run(filesys.MakeFsOnDisk(), filepath.Join(deploy, "kubernetes", "overlays", overlay))
	if err != nil {
		t.Fatal(err)
	}
	m := manifests{config: map[string]*corev1.ConfigMap{}}
	for _, r := range result.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		var into any
		switch gvk := r.GetGvk(); gvk.String() {
		case "Namespace.v1.[noGrp]":
			m.namespace = &corev1.Namespace{}
			into = m.namespace
		case "ServiceAccount.v1.[noGrp]":
			m.account = &corev1.ServiceAccount{}
			into = m.account
		case "ConfigMap.v1.[noGrp]":
			m.config[r.GetName()] = &corev1.ConfigMap{}
			into = m.config[r.GetName()]
		case "DaemonSet.v1.apps":
			m.daemonSet = &appsv1.DaemonSet{}
			into = m.daemonSet
		default:
			t.Fatalf("%s: nobody looks at %s %s", overlay, gvk, r.GetName())
		}
		if err := yaml.UnmarshalStrict(text, into); err != nil {
			t.Fatalf("%s: %s %s: %v", overlay, r.GetKind(), r.GetName(), err)
		}
	}
	if m.namespace == nil || m.account == nil || m.daemonSet == nil {
		t.Fatalf("%s: namespace %v, account %v, daemon set %v", overlay, m.namespace, m.account, m.daemonSet)
	}
	return m
}

// stages gives the labels of nodes that an overlay's pods run on; nil: all.
func stages(t *testing.T, d *appsv1.DaemonSet) []string {
	t.Helper()
	a := d.Spec.Template.Spec.Affinity
	if a == nil {
		return nil
	}
	terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) != 1 || len(terms[0].MatchExpressions) != 1 {
		t.Fatalf("terms: %v", terms)
	}
	e := terms[0].MatchExpressions[0]
	if e.Key != stageKey || e.Operator != corev1.NodeSelectorOpIn {
		t.Fatalf("expression: %v", e)
	}
	return e.Values
}

// TestOverlays: each stage has the nodes of the one before it and more, and is
// otherwise the same: what was tried on a tenth is what all get.
func TestOverlays(t *testing.T) {
	want := map[string][]string{"canary-10": {"10"}, "canary-50": {"10", "50"}, "full": nil}
	var before *appsv1.DaemonSet
	for _, overlay := range overlays {
		m := build(t, overlay)
		if got := stages(t, m.daemonSet); !slices.Equal(got, want[overlay]) {
			t.Errorf("%s runs on the nodes of stages %q, want %q", overlay, got, want[overlay])
		}
		m.daemonSet.Spec.Template.Spec.Affinity = nil
		if before != nil && !reflect.DeepEqual(before, m.daemonSet) {
			t.Errorf("%s differs from the stage before in more than its nodes", overlay)
		}
		before = m.daemonSet
	}
}

// TestDaemonSet: what it points to is there, and it may do what it must and no more.
func TestDaemonSet(t *testing.T) {
	m := build(t, "full")
	d := m.daemonSet
	pod := d.Spec.Template.Spec
	if len(pod.Containers) != 1 || len(pod.InitContainers) > 0 {
		t.Fatalf("containers: %v, %v", pod.InitContainers, pod.Containers)
	}
	c := pod.Containers[0]
	for what, ok := range map[string]bool{
		"all is in the namespace": d.Namespace == m.namespace.Name && m.account.Namespace == m.namespace.Name,
		"the selector fits":       len(d.Spec.Selector.MatchLabels) > 0 && fits(d.Spec.Selector.MatchLabels, d.Spec.Template.Labels),
		"the account is there":    pod.ServiceAccountName == m.account.Name,
		"no token":                no(m.account.AutomountServiceAccountToken) && no(pod.AutomountServiceAccountToken) && no(pod.EnableServiceLinks),
		"no part of the host":     !pod.HostNetwork && !pod.HostPID && !pod.HostIPC,
		"no more privileges":      no(c.SecurityContext.AllowPrivilegeEscalation) && c.SecurityContext.Privileged == nil,
		"nothing to write":        c.SecurityContext.ReadOnlyRootFilesystem != nil && *c.SecurityContext.ReadOnlyRootFilesystem,
		"one capability": slices.Equal(c.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}) &&
			slices.Equal(c.SecurityContext.Capabilities.Add, []corev1.Capability{"DAC_READ_SEARCH"}),
		"seccomp":             pod.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"every node":          slices.Equal(pod.Tolerations, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}),
		"memory is bounded":   !c.Resources.Limits.Memory().IsZero() && !c.Resources.Requests.Memory().IsZero() && !c.Resources.Requests.Cpu().IsZero(),
		"a stop has its time": *pod.TerminationGracePeriodSeconds > 10, // shutdown_grace
		"lives by /livez":     c.LivenessProbe.HTTPGet.Path == "/livez" && c.StartupProbe.HTTPGet.Path == "/livez",
		"ready by /readyz":    c.ReadinessProbe.HTTPGet.Path == "/readyz",
		"the probed port":     c.LivenessProbe.HTTPGet.Port.StrVal == c.Ports[0].Name && c.Ports[0].ContainerPort == 8401,
	} {
		if !ok {
			t.Errorf("%s: not so", what)
		}
	}
	// Each mount has its volume, each volume its mount, each ConfigMap its content.
	volumes := map[string]corev1.Volume{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = v
	}
	for _, mount := range c.VolumeMounts {
		v, ok := volumes[mount.Name]
		switch {
		case !ok:
			t.Errorf("%s has no volume", mount.Name)
		case v.HostPath != nil && v.HostPath.Path != mount.MountPath:
			t.Errorf("%s of the host is seen at %s", v.HostPath.Path, mount.MountPath)
		case v.ConfigMap != nil && m.config[v.ConfigMap.Name] == nil:
			t.Errorf("no ConfigMap %s", v.ConfigMap.Name)
		case v.ConfigMap != nil && m.config[v.ConfigMap.Name].Data["config.yaml"] == "":
			t.Errorf("ConfigMap %s has no config.yaml", v.ConfigMap.Name)
		}
		if mount.Name == "docker-containers" && !mount.ReadOnly {
			t.Error("Docker's files can be written")
		}
		delete(volumes, mount.Name)
	}
	if len(volumes) > 0 {
		t.Errorf("volumes without a mount: %v", volumes)
	}
	env := m.config[c.EnvFrom[0].ConfigMapRef.Name]
	if env == nil || env.Data["LOKI_URL"] == "" {
		t.Errorf("environment: %v", env)
	}
}

func fits(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func no(b *bool) bool { return b != nil && !*b }

// TestLabelNodes: of any number of nodes a tenth, then half, rounded up, and the
// same ones whatever their order.
func TestLabelNodes(t *testing.T) {
	script, err := filepath.Abs(filepath.Join(deploy, "kubernetes", "label-nodes.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ nodes, tenth, half int }{{1, 1, 1}, {2, 1, 1}, {10, 1, 5}, {11, 2, 6}, {25, 3, 13}, {100, 10, 50}} {
		var names []string
		for i := range c.nodes {
			names = append(names, fmt.Sprintf("node/worker-%d", i))
		}
		first := labelled(t, script, names)
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		second := labelled(t, script, names)
		count := map[string]int{}
		for _, name := range names {
			count[first[name]]++
			if first[name] != second[name] {
				t.Errorf("%s is of stage %s, in another order of %s", name, first[name], second[name])
			}
		}
		if count["10"] != c.tenth || count["10"]+count["50"] != c.half || count["10"]+count["50"]+count["100"] != c.nodes {
			t.Errorf("%d nodes: %v", c.nodes, count)
		}
	}
}

// labelled runs the script with a kubectl that has these nodes, and gives the label
// of each.
func labelled(t *testing.T, script string, nodes []string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	list, log := filepath.Join(dir, "nodes"), filepath.Join(dir, "log")
	fake := "#!/bin/sh\nif [ \"$1\" = get ]; then cat '" + list + "'; else echo \"$@\" >>'" + log + "'; fi\n"
	for path, text := range map[string]string{list: strings.Join(nodes, "\n") + "\n", filepath.Join(dir, "kubectl"): fake} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), script, "--context", "test")
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	calls, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	stage := map[string]string{}
	for call := range bytes.Lines(calls) {
		args := strings.Fields(string(call))
		if args[0] != "label" || args[1] != "--overwrite" || !slices.Equal(args[len(args)-2:], []string{"--context", "test"}) {
			t.Fatalf("kubectl %q", args)
		}
		value, ok := strings.CutPrefix(args[len(args)-3], stageKey+"=")
		if !ok {
			t.Fatalf("kubectl %q", args)
		}
		for _, node := range args[2 : len(args)-3] {
			if stage[node] != "" {
				t.Errorf("%s is labelled twice", node)
			}
			stage[node] = value
		}
	}
	return stage
}
