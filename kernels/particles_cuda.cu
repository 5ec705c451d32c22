/* particles_cuda.cu -- values, banks and log-weights of children, and the survivors' arrays. */
#include "fault.cuh"
#include "primitives.cuh"
#include "weigh.h"

/* ---- the clock ---------------------------------------------------------------------------- */

KAC_KERNEL tick(kac_clock *clock)
{
    clock->move++;
    clock->level--;
}

kac_status kac_cuda_tick(kac_device *dev, kac_clock *clock)
{
    return KAC_LAUNCH(dev, tick, 1, 1, 0, clock);
}

/* ---- values and weights ------------------------------------------------------------------- */

/* The arguments with the host structs that they point to. */
struct weigh_call {
    kac_weigh_args a;
    kac_particles x, y;
};

static weigh_call call_of(const kac_weigh_args *a)
{
    return {*a, *a->x, *a->y};
}

/* The arguments of a kernel, pointing to the structs that came with them. */
static __device__ kac_weigh_args args_of(const weigh_call *call)
{
    kac_weigh_args a = call->a;
    a.x = &call->x;
    a.y = const_cast<kac_particles *>(&call->y);
    return a;
}

KAC_KERNEL value(KAC_ARGS weigh_call call)
{
    kac_weigh_args a = args_of(&call);
    KAC_EACH(c, (int64_t)a.x->n * a.children)
    {
        int32_t bad = -1;
        a.y->value[c] = kac_child_value(&a, c, &bad);
        if (bad >= 0 && !a.invalid_is_worst)
            kac_fault_note(a.fault,
                           {KAC_FAULT_NAN, (int32_t)(c / a.children), a.clock->move, bad});
    }
}

kac_status kac_cuda_value(kac_device *dev, const kac_weigh_args *a)
{
    return KAC_LAUNCH(dev, value, kac_blocks((int64_t)a->x->n * a->children), KAC_THREADS, 0,
                      call_of(a));
}

KAC_KERNEL weigh(KAC_ARGS weigh_call call)
{
    kac_weigh_args a = args_of(&call);
    KAC_EACH(c, (int64_t)a.x->n * a.children)
    {
        kac_weighed child =
            kac_child_weighed(&a, c, a.groups[a.x->group[c / a.children]].lambda);
        a.y->bank[c] = child.bank.bank;
        a.y->stat[c] = child.bank.stat;
        a.y->log_w[c] = child.log_w;
    }
}

kac_status kac_cuda_weigh(kac_device *dev, const kac_weigh_args *a)
{
    return KAC_LAUNCH(dev, weigh, kac_blocks((int64_t)a->x->n * a->children), KAC_THREADS, 0,
                      call_of(a));
}
