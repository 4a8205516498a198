package neon

// PreferredAZsRequest is the body of PUT /control/v1/preferred_azs: the new zone of each
// shard. Nil clears it.
type PreferredAZsRequest map[ShardID]*AZ

// UnmarshalJSON reads an object. When a shard occurs twice, the last one counts.
func (r *PreferredAZsRequest) UnmarshalJSON(b []byte) error {
	*r = PreferredAZsRequest{}
	return eachField(b, func(key string, raw []byte) error {
		id, err := ParseShardID(key)
		if err != nil {
			return err
		}
		var az *AZ
		err = value(raw, &az)
		(*r)[id] = az
		return err
	})
}

// PreferredAZsResponse is the answer of PUT /control/v1/preferred_azs. It lists the
// shards that the controller knows.
type PreferredAZsResponse struct {
	Updated List[ShardID] `json:"updated"`
}
