"""A directory as a store: durable writes (`file`, `writer`), mapped reads, copies."""
