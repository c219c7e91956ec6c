;; Takes memory for ever, a mebibyte at a time, and ignores that there may be none.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $more
      (drop (memory.grow (i32.const 16)))
      (br $more))))
