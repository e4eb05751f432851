package monitors

import "time"

// logFailures counts all failures to open or read a log, and keeps the last one.
type logFailures struct {
	errors    int64
	lastErr   error
	lastErrAt time.Time
}

func (f *logFailures) noteFailure(err error) {
	f.errors++
	f.lastErr, f.lastErrAt = err, time.Now()
}

// logProblems are the logs of a road that cannot be read now. The road's lock
// guards it. A directory that is closed, or an engine that is down, is one
// problem, not a thousand: it is said of the first log alone, and its end of the
// last one.
type logProblems[L comparable] map[L]logProblem

// logProblem is why a log cannot be read.
type logProblem struct {
	err   error
	since time.Time
}

// begin notes why a log cannot be read. fresh: it could be until now; first: and
// so could all others.
func (p logProblems[L]) begin(lg L, err error) (fresh, first bool) {
	known, ok := p[lg]
	if !ok {
		known.since = time.Now()
	}
	known.err = err
	fresh, first = !ok, len(p) == 0
	p[lg] = known
	return fresh, first
}

// end notes that a log can be read. ended: it could not be until now; all: and
// there is no other left, after so long a time.
func (p logProblems[L]) end(lg L) (ended, all bool, after time.Duration) {
	known, ok := p[lg]
	if !ok {
		return false, false, 0
	}
	delete(p, lg)
	return true, len(p) == 0, time.Since(known.since).Round(time.Second)
}

// longest gives the error of the log that cannot be read for the longest time;
// nil if all can.
func (p logProblems[L]) longest() (err error) {
	var since time.Time
	for _, known := range p {
		if err == nil || known.since.Before(since) {
			since, err = known.since, known.err
		}
	}
	return err
}
