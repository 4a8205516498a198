package api

import (
	"encoding/json"
	"strconv"

	"quorate/api/neon"
)

// appendLocate prints r as encoding/json would. Every connection of a compute
// begins with this answer, so it is printed without reflection.
func appendLocate(b []byte, r neon.LocateResponse) []byte {
	b = append(b, `{"shards":[`...)
	for i := range r.Shards {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendLocateShard(b, &r.Shards[i])
	}
	b = append(b, `],"shard_params":{"count":`...)
	b = strconv.AppendUint(b, uint64(r.Parameters.Count), 10)
	b = append(b, `,"stripe_size":`...)
	b = strconv.AppendUint(b, uint64(r.Parameters.StripeSize), 10)
	return append(b, `}}`...)
}

func appendLocateShard(b []byte, s *neon.LocateShard) []byte {
	b = append(b, `{"shard_id":"`...)
	b = appendShardID(b, s.Shard)
	b = append(b, `","node_id":`...)
	b = strconv.AppendUint(b, uint64(s.Node), 10)
	b = appendText(b, `,"listen_pg_addr":`, s.PgAddr)
	b = appendPort(b, `,"listen_pg_port":`, &s.PgPort)
	b = appendHost(b, `,"listen_grpc_addr":`, s.GRPCAddr)
	b = appendPort(b, `,"listen_grpc_port":`, s.GRPCPort)
	b = appendText(b, `,"listen_http_addr":`, s.HTTPAddr)
	b = appendPort(b, `,"listen_http_port":`, &s.HTTPPort)
	b = appendPort(b, `,"listen_https_port":`, s.HTTPSPort)
	return append(b, '}')
}

func appendHost(b []byte, key string, host *string) []byte {
	if host == nil {
		return append(append(b, key...), null...)
	}
	return appendText(b, key, *host)
}

// appendText prints a key and a string.
func appendText(b []byte, key, text string) []byte {
	b = append(b, key...)
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' ||
			c == '&' {
			return append(b, encoded(text)...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}

// encoded prints what always encodes.
func encoded(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func appendPort(b []byte, key string, port *uint16) []byte {
	b = append(b, key...)
	if port == nil {
		return append(b, null...)
	}
	return strconv.AppendUint(b, uint64(*port), 10)
}
