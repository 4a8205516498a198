package storconcli

import (
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"quorate/api/neon"
)

// grid is a table in plain ASCII:
//
//	+----+----------+
//	| Id | Hostname |
//	+===============+
//	| 1  | alpha    |
//	|----+----------|
//	| 2  | beta     |
//	+----+----------+
//
// Scripts count the lines. The first row must be the fourth line, and there must be one
// line between two rows.
type grid struct {
	header []string // nil for none
	rows   [][]string
}

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

func (g *grid) render(k ink) string {
	w := table.NewWriter()
	w.SetStyle(table.Style{
		Box: table.BoxStyle{
			TopLeft: "+", TopRight: "+", TopSeparator: "+",
			BottomLeft: "+", BottomRight: "+", BottomSeparator: "+",
			Left: "|", Right: "|", LeftSeparator: "|", RightSeparator: "|",
			MiddleHorizontal: "-", MiddleVertical: "|", MiddleSeparator: "+",
			PaddingLeft: " ", PaddingRight: " ", EmptySeparator: "+",
		},
		Format: table.FormatOptions{Header: text.FormatDefault, Row: text.FormatDefault},
		Options: table.Options{
			DrawBorder: true, SeparateColumns: true, SeparateHeader: true, SeparateRows: true,
		},
	})
	if g.header != nil {
		w.AppendHeader(line(g.header, k.bold))
	}
	for _, cells := range g.rows {
		w.AppendRow(line(cells, func(s string) string { return s }))
	}
	lines := strings.Split(w.Render(), "\n")
	if g.header != nil {
		// The rule below the header runs through, which no style can say.
		rule := "+" + strings.Repeat("=", len(lines[0])-2) + "+"
		if len(g.rows) == 0 {
			lines = append(lines[:2], rule, lines[0])
		}
		lines[2] = rule
	}
	return strings.Join(lines, "\n")
}

func line(cells []string, paint func(string) string) table.Row {
	row := make(table.Row, len(cells))
	for i, c := range cells {
		row[i] = paint(c)
	}
	return row
}

// ink colours text when it is true.
type ink bool

func (k ink) red(s string) string    { return k.paint("31", s) }
func (k ink) yellow(s string) string { return k.paint("33", s) }
func (k ink) bold(s string) string   { return k.paint("1", s) }

func (k ink) paint(code, s string) string {
	if !k || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// availability is red for offline, and yellow for what is not active yet.
func (k ink) availability(a neon.NodeAvailability) string {
	switch a {
	case neon.NodeOffline:
		return k.red(string(a))
	case neon.NodeWarmingUp:
		return k.yellow(string(a))
	}
	return string(a)
}

// unusual is yellow for a policy other than `Active`, in lower or upper case.
func (k ink) unusual(policy string) string {
	if strings.EqualFold(policy, "active") {
		return policy
	}
	return k.yellow(policy)
}
