package report

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"quorate/internal/results"
)

// The colours of plots. They stand for variables of the page's style, which has two values of
// each: what is drawn is the same in the light and in the dark.
var (
	ink    = color.RGBA{1, 1, 1, 255}
	grid   = color.RGBA{2, 2, 2, 255}
	fault  = color.RGBA{3, 3, 3, 255}
	series = []color.RGBA{{4, 4, 4, 255}, {5, 5, 5, 255}, {6, 6, 6, 255}, {7, 7, 7, 255}}
)

// styled replaces the colours by their variables, and the font by the page's.
func styled(svg string) string {
	names := map[color.RGBA]string{ink: "ink", grid: "grid", fault: "fault"}
	for i, c := range series {
		names[c] = "series" + strconv.Itoa(i+1)
	}
	for c, name := range names {
		svg = strings.ReplaceAll(svg, fmt.Sprintf("#%02X%02X%02X", c.R, c.G, c.B),
			"var(--"+name+")")
	}
	for _, font := range []string{"'Liberation Sans'", "Liberation Sans"} {
		svg = strings.ReplaceAll(svg, "font-family:"+font, "font-family:inherit")
	}
	at := strings.Index(svg, "<svg")
	return svg[max(at, 0):]
}

const (
	plotWidth  = 9.2 * vg.Inch
	plotHeight = 3.2 * vg.Inch
)

// newPlot makes an empty plot in the page's colours.
func newPlot(x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.Transparent
	p.X.Label.Text, p.Y.Label.Text = x, y
	sans := font.Font{Typeface: "Liberation", Variant: "Sans", Size: 10}
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Label.TextStyle.Color, a.Tick.Color, a.Tick.Label.Color = ink, ink, ink, ink
		a.Label.TextStyle.Font, a.Tick.Label.Font = sans, sans
		a.LineStyle.Width = 0.5
		a.Tick.LineStyle.Width = 0.5
	}
	p.Legend.TextStyle.Color, p.Legend.TextStyle.Font = ink, sans
	p.Legend.Top, p.Legend.XOffs = true, -6
	lines := plotter.NewGrid()
	lines.Vertical.Color, lines.Horizontal.Color = grid, grid
	p.Add(lines)
	return p
}

// render draws a plot.
func render(p *plot.Plot, height vg.Length) (string, error) {
	c := vgsvg.New(plotWidth, height)
	p.Draw(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", fmt.Errorf("draw a plot: %w", err)
	}
	return styled(b.String()), nil
}

// gaps draws the samples of several results of one unit, a row for each, with their medians.
func gaps(list []results.Result) (string, error) {
	p := newPlot("milliseconds, a point for each event, a bar for the median", "")
	names := make([]string, len(list))
	for i, r := range list {
		row := float64(len(list) - 1 - i)
		names[len(list)-1-i] = label(r)
		points := make(plotter.XYs, len(r.Samples))
		for k, v := range r.Samples {
			// Points of one row are a little apart, always the same.
			points[k] = plotter.XY{X: v * 1000, Y: row + 0.5*(math.Mod(float64(k)*0.618, 1)-0.5)}
		}
		dots, err := plotter.NewScatter(points)
		if err != nil {
			return "", fmt.Errorf("draw gaps: %w", err)
		}
		dots.GlyphStyle = draw.GlyphStyle{
			Color: series[i%2], Radius: vg.Points(2.2), Shape: draw.CircleGlyph{},
		}
		median, err := plotter.NewLine(plotter.XYs{
			{X: r.Median * 1000, Y: row - 0.38}, {X: r.Median * 1000, Y: row + 0.38},
		})
		if err != nil {
			return "", fmt.Errorf("draw gaps: %w", err)
		}
		median.Color, median.Width = ink, vg.Points(1.5)
		p.Add(dots, median)
	}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max, p.X.Min = -0.6, float64(len(list))-0.4, 0
	return render(p, vg.Length(len(list))*0.42*vg.Inch+0.8*vg.Inch)
}

// overTime draws a series, and the moments at which something happened.
func overTime(s results.Series) (string, error) {
	p := newPlot("seconds", s.Unit)
	points := make(plotter.XYs, len(s.Points))
	top := 0.0
	for i, at := range s.Points {
		points[i] = plotter.XY{X: at[0], Y: at[1]}
		top = max(top, at[1])
	}
	line, err := plotter.NewLine(points)
	if err != nil {
		return "", fmt.Errorf("draw %s: %w", s.Name, err)
	}
	line.Color, line.Width = series[0], vg.Points(0.8)
	p.Add(line)
	p.Legend.Add(s.Unit, line)
	var told []string
	for _, m := range s.Marks {
		mark, err := plotter.NewLine(plotter.XYs{{X: m.At, Y: 0}, {X: m.At, Y: top * 1.05}})
		if err != nil {
			return "", fmt.Errorf("draw %s: %w", s.Name, err)
		}
		kind := slices.Index(told, m.Text)
		if kind < 0 {
			kind = len(told)
			told = append(told, m.Text)
			p.Legend.Add(m.Text, mark)
		}
		mark.Color, mark.Width, mark.Dashes = fault, vg.Points(1), dashes(kind)
		p.Add(mark)
	}
	p.Y.Min, p.Y.Max = 0, top*1.05+float64(len(told)+1)*top*0.09
	return render(p, plotHeight)
}

// dashes tells kinds of marks apart.
func dashes(kind int) []vg.Length {
	return [][]vg.Length{nil, {4, 2}, {1, 2}, {6, 2, 1, 2}, {8, 3}}[kind%5]
}

// overSize draws results that were measured with several numbers of shards. Both axes are
// logarithms.
func overSize(list []results.Result, unit string, scale float64) (string, error) {
	p := newPlot("shards", unit)
	lines := map[string]plotter.XYs{}
	var order []string
	for _, r := range list {
		shards, err := strconv.ParseFloat(r.Labels["shards"], 64)
		if err != nil || r.Median <= 0 {
			continue
		}
		if lines[r.Name] == nil {
			order = append(order, r.Name)
		}
		lines[r.Name] = append(lines[r.Name], plotter.XY{X: shards, Y: r.Median * scale})
	}
	low, high := math.Inf(1), 0.0
	for i, name := range order {
		for _, at := range lines[name] {
			low, high = min(low, at.Y), max(high, at.Y)
		}
		line, dots, err := plotter.NewLinePoints(lines[name])
		if err != nil {
			return "", fmt.Errorf("draw %s: %w", name, err)
		}
		c := series[i%len(series)]
		line.Color, line.Width, dots.Color, dots.Shape = c, 1.5, c, draw.CircleGlyph{}
		p.Add(line, dots)
		p.Legend.Add(name, line, dots)
	}
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = decades{}, decades{}
	p.Y.Min = math.Pow(10, math.Floor(math.Log10(low)))
	p.Y.Max = math.Pow(10, math.Ceil(math.Log10(high*1.5)))
	return render(p, plotHeight)
}

// decades marks 1, 10, 100 and so on with their numbers.
type decades struct{}

// Ticks has the marks from low to high.
func (decades) Ticks(low, high float64) (ticks []plot.Tick) {
	for at := math.Pow(10, math.Floor(math.Log10(low))); at <= high*1.0001; at *= 10 {
		for k := 1.0; k < 10; k++ {
			if v := at * k; v >= low*0.9999 && v <= high*1.0001 {
				text := ""
				if k == 1 {
					text = results.Format(v, results.Count)
				}
				ticks = append(ticks, plot.Tick{Value: v, Label: text})
			}
		}
	}
	return ticks
}
