package main

import (
	"fmt"
	"html"
	"strings"
)

// panel is a group of bars of one scale.
type panel struct {
	title  string
	digits int
	bars   []bar
}

type bar struct {
	name  string
	value float64
	ours  bool
}

// panelsOf chooses what of the results is drawn.
func panelsOf(cells []cell) (panels []panel) {
	for _, g := range byWorkload(cells) {
		r := &g[0].Result
		caughtUp := r.Latency.Count == 0 && r.Lines > 0
		add := func(what string, digits int, value func(*Result) float64) {
			p := panel{title: r.Workload + ": " + what, digits: digits}
			for i := range g {
				if g[i].Problem == "" {
					p.bars = append(p.bars, bar{g[i].Agent, value(&g[i].Result), g[i].Agent == agentOurs})
				}
			}
			if len(p.bars) > 0 {
				panels = append(panels, p)
			}
		}
		switch {
		case len(g) == 1: // below
		case caughtUp:
			add("MB of Docker's JSON per CPU second", 0, (*Result).speed)
			add("peak memory, MB", 0, func(r *Result) float64 { return float64(r.Peak) / 1e6 })
		default:
			add("CPU, % of one core", 2, (*Result).percent)
			if r.Latency.Count > 0 {
				add("p99 from written to accepted, ms", 0, func(r *Result) float64 { return float64(r.Latency.P99) / 1e6 })
			}
		}
	}
	// Cost by the number of containers: one bar for each.
	for _, kind := range []string{"idle", "spread"} {
		p := panel{title: kind + ", CPU in % of one core by containers", digits: 3}
		for _, c := range cells {
			if strings.HasPrefix(c.Workload, kind+"-") && c.Problem == "" {
				p.bars = append(p.bars, bar{fmt.Sprint(c.Containers), c.percent(), true})
			}
		}
		if len(p.bars) > 0 {
			panels = append(panels, p)
		}
	}
	return panels
}

// plotOf draws the results as SVG.
func plotOf(cells []cell) string {
	const (
		columns, width, gap    = 2, 440, 20
		titleRow, row, nameCol = 30, 20, 100
		valueCol               = 60
	)
	panels := panelsOf(cells)
	var body strings.Builder
	y := gap
	for i := 0; i < len(panels); i += columns {
		height := 0
		for k, p := range panels[i:min(i+columns, len(panels))] {
			x := gap + k*(width+gap)
			fmt.Fprintf(&body, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", x, y+15, html.EscapeString(p.title))
			most := 0.0
			for _, b := range p.bars {
				most = max(most, b.value)
			}
			for j, b := range p.bars {
				top := y + titleRow + j*row
				fill := "#9aa5b1"
				if b.ours {
					fill = "#1f77b4"
				}
				long := ratio(b.value, most) * (width - nameCol - valueCol)
				fmt.Fprintf(&body, `<text x="%d" y="%d">%s</text><rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d">%.*f</text>`+"\n",
					x, top+12, html.EscapeString(b.name), x+nameCol, top, long, row-4, fill, float64(x+nameCol)+long+6, top+12, p.digits, b.value)
			}
			height = max(height, titleRow+len(p.bars)*row)
		}
		y += height + gap
	}
	w := columns*(width+gap) + gap
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n"+
		`<rect width="100%%" height="100%%" fill="white"/>`+"\n%s</svg>\n", w, y, w, y, body.String())
}
