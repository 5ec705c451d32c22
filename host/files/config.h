/* config.h -- a configuration as its own files see it; all others use kac.h and settings.h. */
#ifndef KAC_CONFIG_H
#define KAC_CONFIG_H

#include "settings.h"

typedef struct kac_config_entry {
    char *key, *value;
    char *place; /* "my.yaml:5", or NULL where no file gave it */
} kac_config_entry;

struct kac_config {
    int count, capacity;
    kac_config_entry *given; /* [count] in the order in which they were first given */
};

kac_status kac_config_no_memory(void);

/* Keeps a pair that has been checked, in place of an earlier value of the key; `place` may be NULL. */
kac_status kac_config_keep(kac_config *config, const char *key, const char *value,
                           const char *place);

/* Forgets the whole list of rewards. */
void kac_config_drop_rewards(kac_config *config);

/* The settings in force, whether or not they agree with each other. */
kac_status kac_config_resolve(const kac_config *config, kac_settings *out);

#endif /* KAC_CONFIG_H */
