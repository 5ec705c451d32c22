/* memo.c -- memory of the memos of kernels/types.h. */
#include "memo.h"

kac_status kac_memo_open(kac_device *dev, const kac_memo_size *size, kac_memo *memo)
{
    if (size->capacity > 1 << 29)
        return KAC_FAIL(KAC_ERR_INVALID, "a run of %d states is too large; at most %d",
                        size->capacity, 1 << 29);
    kac_alloc_fn *alloc = dev->ops->memory.alloc;
    size_t n = (size_t)size->capacity;
    size_t rows = (size_t)size->slots + (size_t)size->spare;
    int32_t buckets = 16;
    while (buckets < 2 * size->capacity)
        buckets *= 2;

    *memo = (kac_memo){
        .capacity = size->capacity,
        .buckets = buckets,
        .stride = size->stride,
        .slots = size->slots,
        .spare = size->spare,
        .slot_floats = size->slot_floats,
        .n_terms = size->n_terms,
        .reuse = size->reuse,
        .keys = alloc(dev, n * (size_t)size->stride),
        .hash = alloc(dev, n * sizeof(uint64_t)),
        .table = alloc(dev, (size_t)buckets * sizeof(int32_t)),
        .live = alloc(dev, n * sizeof(int32_t)),
        .free_entries = alloc(dev, n * sizeof(int32_t)),
        .free_slots = alloc(dev, (size_t)size->slots * sizeof(int32_t)),
        .slot = alloc(dev, n * sizeof(int32_t)),
        .order = alloc(dev, n * sizeof(int32_t)),
        .spare_owner = alloc(dev, (size_t)size->spare * sizeof(int32_t)),
        .counts = alloc(dev, 2 * sizeof(int32_t)),
        .terms = alloc(dev, n * (size_t)size->n_terms * sizeof(float)),
        .logits = alloc(dev, rows * (size_t)size->slot_floats * sizeof(float)),
    };
    if (!memo->keys || !memo->hash || !memo->table || !memo->live || !memo->free_entries ||
        !memo->free_slots || !memo->slot || !memo->order || !memo->spare_owner ||
        !memo->counts || !memo->terms || !memo->logits) {
        kac_memo_close(dev, memo);
        return KAC_ERR_NOMEM;
    }
    return dev->ops->states.clear(dev, memo);
}

void kac_memo_close(kac_device *dev, kac_memo *memo)
{
    kac_release_fn *release = dev->ops->memory.release;
    release(dev, memo->keys);
    release(dev, memo->hash);
    release(dev, memo->table);
    release(dev, memo->live);
    release(dev, memo->free_entries);
    release(dev, memo->free_slots);
    release(dev, memo->slot);
    release(dev, memo->order);
    release(dev, memo->spare_owner);
    release(dev, memo->counts);
    release(dev, memo->terms);
    release(dev, memo->logits);
    *memo = (kac_memo){0};
}

kac_status kac_fresh_open(kac_device *dev, int32_t capacity, kac_fresh *fresh)
{
    kac_alloc_fn *alloc = dev->ops->memory.alloc;
    *fresh = (kac_fresh){
        .src = alloc(dev, (size_t)capacity * sizeof(int32_t)),
        .entry = alloc(dev, (size_t)capacity * sizeof(int32_t)),
        .count = alloc(dev, sizeof(int32_t)),
        .capacity = capacity,
    };
    if (fresh->src != NULL && fresh->entry != NULL && fresh->count != NULL) return KAC_OK;
    kac_fresh_close(dev, fresh);
    return KAC_ERR_NOMEM;
}

void kac_fresh_close(kac_device *dev, kac_fresh *fresh)
{
    dev->ops->memory.release(dev, fresh->src);
    dev->ops->memory.release(dev, fresh->entry);
    dev->ops->memory.release(dev, fresh->count);
    *fresh = (kac_fresh){0};
}
