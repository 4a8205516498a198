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
	for _, name := range []string{"'Liberation Sans'", "Liberation Sans"} {
		svg = strings.ReplaceAll(svg, "font-family:"+name, "font-family:var(--plot-font)")
	}
	at := strings.Index(svg, "<svg")
	return svg[max(at, 0):]
}

const (
	plotWidth  = 9.2 * vg.Inch
	plotHeight = 3.2 * vg.Inch
	plotRight  = 0.3 * vg.Inch // for the half of the last number of an axis
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
	p.X.Tick.Marker, p.Y.Tick.Marker = plainTicks{}, plainTicks{}
	lines := plotter.NewGrid()
	lines.Vertical.Color, lines.Horizontal.Color = grid, grid
	p.Add(lines)
	return p
}

// render draws a plot.
func render(p *plot.Plot, height vg.Length) (string, error) {
	c := vgsvg.New(plotWidth, height)
	p.Draw(draw.Crop(draw.New(c), 0, -plotRight, 0, 0))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", fmt.Errorf("draw a plot: %w", err)
	}
	return styled(b.String()), nil
}

// gaps draws the samples of several results of one unit, a row for each, with their medians.
func gaps(list []results.Result) (svg string, keys []key, err error) {
	p := newPlot("milliseconds", "")
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
			return "", nil, fmt.Errorf("draw gaps: %w", err)
		}
		dots.GlyphStyle = draw.GlyphStyle{
			Color: colourOf(r), Radius: vg.Points(2.2), Shape: draw.CircleGlyph{},
		}
		median, err := plotter.NewLine(plotter.XYs{
			{X: r.Median * 1000, Y: row - 0.38}, {X: r.Median * 1000, Y: row + 0.38},
		})
		if err != nil {
			return "", nil, fmt.Errorf("draw gaps: %w", err)
		}
		median.Color, median.Width = ink, vg.Points(1.5)
		p.Add(dots, median)
	}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max, p.X.Min = -0.6, float64(len(list))-0.4, 0
	svg, err = render(p, vg.Length(len(list))*0.36*vg.Inch+0.8*vg.Inch)
	return svg, []key{
		{Colour: "series1", Text: "with the event"}, {Colour: "series2", Text: "before it"},
	}, err
}

// colourOf tells what happened without an event from what happened with one.
func colourOf(r results.Result) color.RGBA {
	if strings.HasSuffix(r.Name, ".before") {
		return series[1]
	}
	return series[0]
}

// key says what a line of a plot means.
type key struct {
	Colour string // a variable of the page
	Dashes string // as SVG has them; empty: none
	Text   string
}

// overTime draws a series, and the moments at which something happened.
func overTime(s results.Series) (svg string, keys []key, err error) {
	p := newPlot("seconds", s.Unit)
	points := make(plotter.XYs, len(s.Points))
	top := 0.0
	for i, at := range s.Points {
		points[i] = plotter.XY{X: at[0], Y: at[1]}
		top = max(top, at[1])
	}
	keys = []key{{Colour: "series1", Text: s.Unit}}
	for _, m := range s.Marks {
		mark, err := plotter.NewLine(plotter.XYs{{X: m.At, Y: 0}, {X: m.At, Y: top * 1.05}})
		if err != nil {
			return "", nil, fmt.Errorf("draw %s: %w", s.Name, err)
		}
		kind := slices.IndexFunc(keys, func(k key) bool { return k.Text == m.Text })
		if kind < 0 {
			kind = len(keys)
			keys = append(keys, key{Colour: "fault", Dashes: dashText(kind - 1), Text: m.Text})
		}
		mark.Color, mark.Width, mark.Dashes = fault, vg.Points(1), dashes[(kind-1)%len(dashes)]
		p.Add(mark)
	}
	line, err := plotter.NewLine(points)
	if err != nil {
		return "", nil, fmt.Errorf("draw %s: %w", s.Name, err)
	}
	line.Color, line.Width = series[0], vg.Points(0.8)
	p.Add(line)
	p.X.Min, p.Y.Min, p.Y.Max = 0, 0, max(1, top*1.05)
	svg, err = render(p, plotHeight)
	return svg, keys, err
}

// dashes tell kinds of marks apart.
var dashes = [][]vg.Length{nil, {5, 3}, {1.5, 2.5}, {7, 2, 1.5, 2}, {10, 4}}

func dashText(kind int) string {
	var b strings.Builder
	for _, d := range dashes[kind%len(dashes)] {
		fmt.Fprintf(&b, "%g ", d.Points())
	}
	return b.String()
}

// overSize draws results that were measured with several numbers of shards. Both axes are
// logarithms.
func overSize(
	list []results.Result, unit string, scale float64,
) (svg string, keys []key, err error) {
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
			return "", nil, fmt.Errorf("draw %s: %w", name, err)
		}
		c := series[i%len(series)]
		line.Color, line.Width, dots.Color, dots.Shape = c, 1.5, c, draw.CircleGlyph{}
		p.Add(line, dots)
		keys = append(keys, key{Colour: fmt.Sprint("series", i%len(series)+1), Text: name})
	}
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = decades{}, decades{}
	p.Y.Min = math.Pow(10, math.Floor(math.Log10(low)))
	p.Y.Max = math.Pow(10, math.Ceil(math.Log10(high*1.5)))
	svg, err = render(p, plotHeight)
	return svg, keys, err
}

// plainTicks are the usual marks, with numbers that have no needless digits.
type plainTicks struct{}

// Ticks has the marks from low to high.
func (plainTicks) Ticks(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i, t := range ticks {
		if t.Label != "" {
			ticks[i].Label = strconv.FormatFloat(t.Value, 'g', 6, 64)
		}
	}
	return ticks
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
