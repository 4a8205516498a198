package storconcli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// format is how results are printed.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
)

var formats = []string{string(formatTable), string(formatJSON), string(formatYAML)}

func (f format) String() string { return string(f) }

func parseFormat(s string) (format, error) {
	if !slices.Contains(formats, s) {
		return "", fmt.Errorf("[possible values: %s]", strings.Join(formats, ", "))
	}
	return format(s), nil
}

// printer prints results to out. It prints remarks about the progress there as well,
// unless the results are for programs.
type printer struct {
	out, err  io.Writer
	format    format
	colour    ink
	documents int // printed so far
}

// result prints one result, as text for people or as a document for programs.
func (p *printer) result(document any, text func(ink) string) error {
	if p.format == formatTable {
		_, err := fmt.Fprintln(p.out, text(p.colour))
		return err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(document); err != nil {
		return err
	}
	doc := b.Bytes()
	if p.format == formatYAML {
		var err error
		if doc, err = yaml.JSONToYAML(doc); err != nil {
			return err
		}
		if p.documents > 0 {
			doc = append([]byte("---\n"), doc...)
		}
	}
	p.documents++
	_, err := p.out.Write(doc)
	return err
}

// sentence prints a result that is one line for people.
func (p *printer) sentence(document any, format string, args ...any) error {
	return p.result(document, func(ink) string { return fmt.Sprintf(format, args...) })
}

// remark prints a line about the progress.
func (p *printer) remark(format string, args ...any) {
	w := p.out
	if p.format != formatTable {
		w = p.err
	}
	fmt.Fprintf(w, format+"\n", args...)
}

// warn prints a line that is not part of any output.
func (p *printer) warn(format string, args ...any) { fmt.Fprintf(p.err, format+"\n", args...) }
