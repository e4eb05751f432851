package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// check looks at what no single key can tell: how keys go together. It keeps
// silent about keys that are wrong by themselves.
func (d *decoder) check() {
	if slices.ContainsFunc(d.errs, func(e Error) bool { return e.Key == "" }) {
		return // not even a file of sections
	}
	d.checkRoads()
	d.checkSinks()
	d.checkAuth()
	d.checkTLS()
	d.checkLabels()
}

// conflict reports key, where it stands in the file.
func (d *decoder) conflict(key, problem, allowed string) {
	d.fail(d.line(key), key, problem, allowed)
}

// checkRoads: with neither files nor streams nothing is captured. That is a
// setting of its own, and who sets it knows what it does.
func (d *decoder) checkRoads() {
	c := &d.cfg.Monitors.Container
	if c.Enabled && !c.FileBasedMonitoring.Enabled && !c.Streaming.Enabled && !d.failed("monitors.container.enabled") {
		d.conflict("monitors.container.file_based_monitoring.enabled",
			"is false and so is monitors.container.streaming.enabled: no container would be captured",
			"one of the two true; to capture no containers, set monitors.container.enabled: false")
	}
}

func (d *decoder) checkSinks() {
	s := &d.cfg.Sinks
	if d.failed("sinks.loki.url", "sinks.stdout") || d.wrong("sinks", "sinks.loki") {
		return
	}
	switch {
	case s.Stdout.Enabled && s.Loki.URL != "":
		d.conflict("sinks.stdout.enabled", "is true although sinks.loki.url is set, and lines have one destination",
			"choose one: remove sinks.loki.url or set this to false")
	case !s.Stdout.Enabled && s.Loki.URL == "":
		d.conflict("sinks", "no destination for the lines", "set sinks.loki.url, or sinks.stdout.enabled: true")
	}
}

// wrong reports whether one of exactly these keys is wrong: a section of a wrong
// type, for one.
func (d *decoder) wrong(keys ...string) bool {
	return slices.ContainsFunc(d.errs, func(e Error) bool { return slices.Contains(keys, e.Key) })
}

func (d *decoder) checkAuth() {
	l := &d.cfg.Sinks.Loki
	const auth, bearer, headers = "sinks.loki.basic_auth", "sinks.loki.bearer_token_file", "sinks.loki.headers"
	a := &l.BasicAuth
	basicRead, bearerRead := !d.failed(auth), !d.failed(bearer)
	if basicRead {
		switch {
		case a.Password != "" && a.PasswordFile != "":
			d.conflict(auth+".password_file", "is set beside password", "only one of the two")
		case a.Username == "" && a.Password != "":
			d.conflict(auth+".password", "is set without username", "both or neither")
		case a.Username == "" && a.PasswordFile != "":
			d.conflict(auth+".password_file", "is set without username", "both or neither")
		case a.Username != "" && a.Password == "" && a.PasswordFile == "":
			d.conflict(auth+".username", "is set without a password", "with password or password_file")
		}
	}
	if !basicRead || !bearerRead {
		return
	}
	basic := *a != BasicAuth{}
	if basic && l.BearerTokenFile != "" {
		d.conflict(bearer, "is set beside basic_auth", "only one way to authenticate")
	}
	if _, ok := l.Headers["Authorization"]; ok && (basic || l.BearerTokenFile != "") {
		d.conflict(headers+".Authorization", "is set beside basic_auth or bearer_token_file", "only one way to authenticate")
	}
}

func (d *decoder) checkTLS() {
	l := &d.cfg.Sinks.Loki
	const tls = "sinks.loki.tls"
	if d.failed(tls) {
		return
	}
	switch {
	case l.TLS.CertFile != "" && l.TLS.KeyFile == "":
		d.conflict(tls+".cert_file", "is set without key_file", "both or neither")
	case l.TLS.CertFile == "" && l.TLS.KeyFile != "":
		d.conflict(tls+".key_file", "is set without cert_file", "both or neither")
	}
	if l.TLS != (TLS{}) && strings.HasPrefix(strings.ToLower(l.URL), "http://") && !d.failed("sinks.loki.url") {
		d.conflict(tls, "has no effect: sinks.loki.url begins with http://", "only with https://")
	}
}

func (d *decoder) checkLabels() {
	const static, chosen = "sinks.loki.labels", "monitors.container.container_labels"
	if d.failed(static, chosen) {
		return
	}
	owner := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(d.cfg.Sinks.Loki.Labels)) {
		owner[name] = static + "." + name
	}
	for i, l := range d.cfg.Monitors.Container.ContainerLabels {
		at := chosen + "[" + strconv.Itoa(i) + "]"
		if other, clash := owner[l.Label]; clash {
			d.conflict(at, "becomes the label "+quote(l.Label)+", and so does "+other, "each label once")
			continue
		}
		owner[l.Label] = at
	}
	if n := len(fixedLabels()) + len(owner); n > maxLabels {
		at := chosen
		if len(d.cfg.Sinks.Loki.Labels) > len(d.cfg.Monitors.Container.ContainerLabels) {
			at = static
		}
		d.conflict(at, "makes "+strconv.Itoa(n)+" labels, "+strconv.Itoa(len(fixedLabels()))+" of them the agent's own",
			"at most "+strconv.Itoa(maxLabels)+" in all, Loki's limit: "+
				strconv.Itoa(maxLabels-len(fixedLabels()))+" in container_labels and sinks.loki.labels together")
	}
}
