package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-capturer/log_capturer/bench/internal/measure"
)

// Machine is where and when something was measured.
type Machine struct {
	Date   time.Time
	CPU    string
	Cores  int
	Memory int64 // bytes
	Kernel string
	Go     string
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores of %s, %.0f GB, Linux %s, %s", m.Date.Format(time.DateTime), m.Cores, m.CPU, float64(m.Memory)/1e9, m.Kernel, m.Go)
}

func thisMachine() (Machine, error) {
	m := Machine{Date: time.Now().UTC().Truncate(time.Second), CPU: runtime.GOARCH, Go: runtime.Version()}
	cores, err := measure.Cores()
	if err != nil {
		return m, err
	}
	m.Cores = len(cores)
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, fmt.Errorf("name of the kernel: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(name.Release[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, fmt.Errorf("memory of the machine: %w", err)
	}
	m.Memory = int64(info.Totalram) * int64(info.Unit)
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	for l := range bytes.Lines(text) {
		if key, value, _ := strings.Cut(string(l), ":"); strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m, nil
}

// loadAverage is that of the last minute.
func loadAverage() (float64, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), " ")
	return strconv.ParseFloat(first, 64)
}
