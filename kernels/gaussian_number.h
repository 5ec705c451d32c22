/* gaussian_number.h -- what the operations of the Gaussian process do with one number of a
 * vector. */
#ifndef KAC_GAUSSIAN_NUMBER_H
#define KAC_GAUSSIAN_NUMBER_H

#include "complete.h"
#include "gaussian.h"

/* Number l of a vector is z[l % 2] of the draw at position l / 2. */
KAC_HD static inline double kac_normal(kac_key key, kac_purpose purpose, int32_t l)
{
    double z[2];
    kac_normals(kac_draw(key, purpose, (uint32_t)(l / 2)), z);
    return l % 2 == 0 ? z[0] : z[1];
}

/* One number of a move, the same for all children of a particle. */
typedef struct kac_number_law {
    double mean;
    double shift; /* u: of the mean, in units of the deviation */
} kac_number_law;

/* The estimate that the move takes, from those of this level and of the level above. */
KAC_HD static inline double kac_estimate(const kac_gaussian_level *level, double now,
                                         double above)
{
    if (level->extrapolate == 0) return now;
    return fma(level->extrapolate, now - above, now);
}

/* The law of number l of the children of particle i. */
KAC_HD static inline kac_number_law kac_law_of_number(const kac_propose_args *a,
                                                      const kac_gaussian_level *level,
                                                      int32_t i, int32_t l)
{
    const float *row = kac_vector(a->x->x, i, a->shape.stride);
    double now = (double)kac_logits_of(a->memo, a->x->entry[i])[l];
    double above = a->look_back ? (double)row[a->shape.length + l] : now;
    double d = kac_estimate(level, now, above);
    kac_number_law law = {fma(level->keep, (double)row[l], level->pull * d), 0};
    if (a->twist.tilt != NULL) {
        const kac_group *group = &a->groups[a->x->group[i]];
        double tilt = (double)a->twist.tilt[(int64_t)a->twist.row[i] * a->shape.length + l];
        double scale = a->twist.scale * group->lambda / group->alpha;
        if (tilt - tilt == 0) law.shift = level->spread * scale * tilt; /* a number */
    }
    return law;
}

/* That number of the child that draws z. */
KAC_HD static inline float kac_number(const kac_gaussian_level *level, kac_number_law law,
                                      double z)
{
    return (float)fma(level->spread, z + law.shift, law.mean);
}

#endif /* KAC_GAUSSIAN_NUMBER_H */
