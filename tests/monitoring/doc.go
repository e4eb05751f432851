// Package monitoring tests what is delivered for Prometheus and Grafana: the alerts
// and dashboards in deploy, and the runbooks of the alerts in docs/runbooks. What can
// be said of the files is said by reading them; that they are right, by a real
// Prometheus that scrapes real agents.
package monitoring
