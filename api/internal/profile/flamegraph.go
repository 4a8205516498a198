package profile

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"

	"github.com/google/pprof/profile"
)

// Measures of a flame graph, in pixels.
const (
	flameWidth    = 1200
	flameRow      = 17
	flameNarrow   = 0.2 // what is narrower is left out
	flameLetter   = 7
	flameFontSize = 12
)

// flame is a function as it was called from the ones below it.
type flame struct {
	name  string
	value int64
	calls map[string]*flame
}

// called is the flame of a function that f calls.
func (f *flame) called(name string) *flame {
	if f.calls == nil {
		f.calls = make(map[string]*flame)
	}
	c := f.calls[name]
	if c == nil {
		c = &flame{name: name}
		f.calls[name] = c
	}
	return c
}

func (f *flame) depth() (most int) {
	for _, c := range f.calls {
		most = max(most, c.depth())
	}
	return most + 1
}

// flames adds the samples of a profile up. It takes the last of their values: time for
// a CPU profile, bytes in use for one of the heap.
func flames(p *profile.Profile) *flame {
	root := &flame{name: "all"}
	last := len(p.SampleType) - 1
	for _, s := range p.Sample {
		at := root
		at.value += s.Value[last]
		for _, loc := range slices.Backward(s.Location) {
			for _, line := range slices.Backward(loc.Line) { // inlined calls, the innermost first
				at = at.called(line.Function.Name)
				at.value += s.Value[last]
			}
		}
	}
	return root
}

// FlameGraph draws a profile as an SVG picture, with each function above its callers.
// Names that have no room are shown when the mouse is over them.
func FlameGraph(data []byte) ([]byte, error) {
	p, err := profile.ParseData(data)
	if err != nil {
		return nil, err
	}
	root := flames(p)
	height := root.depth() * flameRow
	var out bytes.Buffer
	fmt.Fprintf(&out, `<?xml version="1.0" encoding="UTF-8"?>`+"\n"+
		`<svg xmlns="http://www.w3.org/2000/svg" version="1.1" width="%d" height="%d" viewBox="0 0 %d %d" font-family="monospace" font-size="%d">`+"\n",
		flameWidth, height, flameWidth, height, flameFontSize)
	g := flameDrawing{
		out: &out, total: max(root.value, 1), unit: p.SampleType[len(p.SampleType)-1].Unit,
	}
	g.draw(root, 0, height-flameRow)
	out.WriteString("</svg>\n")
	return out.Bytes(), nil
}

type flameDrawing struct {
	out   *bytes.Buffer
	total int64 // Invariant: positive
	unit  string
}

// draw draws f and what it calls; y is the top of its row.
func (g *flameDrawing) draw(f *flame, x float64, y int) {
	width := flameWidth * float64(f.value) / float64(g.total)
	if width < flameNarrow {
		return
	}
	g.box(f, x, y, width)
	for _, name := range slices.Sorted(maps.Keys(f.calls)) {
		c := f.calls[name]
		g.draw(c, x, y-flameRow)
		x += flameWidth * float64(c.value) / float64(g.total)
	}
}

func (g *flameDrawing) box(f *flame, x float64, y int, width float64) {
	name := f.name
	if room := int(width / flameLetter); len(name) > room {
		name = name[:max(0, room)]
	}
	fmt.Fprintf(g.out,
		`<g><title>%s (%d %s, %.2f%%)</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="hsl(%d,75%%,65%%)" rx="1"/><text x="%.1f" y="%d">%s</text></g>`+"\n",
		escapeXML(f.name), f.value, g.unit, 100*float64(f.value)/float64(g.total), x, y, width,
		flameRow-1, hue(f.name), x+2, y+flameFontSize, escapeXML(name))
}

// hue is a warm colour that a name always has.
func hue(name string) (h int) {
	for i := range len(name) {
		h = (31*h + int(name[i])) % 55
	}
	return h
}

func escapeXML(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}
