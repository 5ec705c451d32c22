/* object.c -- objects as text. */
#include "object.h"

#include <stdio.h>
#include <string.h>

size_t kac_object_size(const kac_object_form *form)
{
    size_t number = sizeof "-1.23456789e-38";
    if (form->molecule != NULL) return kac_smiles_size(form->shape.nodes);
    return (size_t)form->shape.length * (form->alphabet[0] == '\0' ? number : 1) + 1;
}

/* Numbers separated by blanks. */
static void write_vector(const kac_object_form *form, const uint8_t *x, char *text)
{
    size_t used = 0, size = kac_object_size(form);
    for (int32_t l = 0; l < form->shape.length; l++) {
        float value = 0;
        memcpy(&value, x + (size_t)l * sizeof value, sizeof value);
        used += (size_t)snprintf(text + used, size - used, "%s%.9g", l > 0 ? " " : "",
                                 (double)value);
    }
}

static void write_molecule(const kac_object_form *form, const uint8_t *x, char *text)
{
    kac_molecule_read(form->molecule, &form->shape, (const void *)x);
    kac_smiles_write(form->molecule, text);
}

void kac_object_write(const kac_object_form *form, const uint8_t *x, char *text)
{
    if (form->molecule != NULL) {
        write_molecule(form, x, text);
        return;
    }
    if (form->alphabet[0] == '\0') {
        write_vector(form, x, text);
        return;
    }
    for (int32_t l = 0; l < form->shape.length; l++)
        text[l] = form->alphabet[x[l]];
    text[form->shape.length] = '\0';
}
